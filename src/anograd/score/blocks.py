"""The score test layer by layer: each layer's gradient by its own Fisher information."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from anograd.features import Features, Samples
from anograd.score.fisher import ScoreTest
from anograd.spectrum import Spectrum


class BlockTest(nn.Module):
    """The surprises of a `ScoreTest` of each layer, and that of the loss, added; high = anomalous.

    The Fisher information is taken for block-diagonal, a block a layer, and each layer's statistic has a
    scale of its own: a layer with many entries, or large ones, does not drown the others.

    Parameters
    ----------
    widths : sequence of int
        Gradient entries of each layer.
    ridge : float, default 1e-3
    typicality : bool, default False
        As in `ScoreTest`.
    """

    def __init__(self, widths: Sequence[int], *, ridge: float = 1e-3, typicality: bool = False) -> None:
        super().__init__()
        self.widths = list(widths)
        self.tests = nn.ModuleList(
            ScoreTest(width, projected=True, ridge=ridge, typicality=typicality) for width in widths
        )

    def fit(self, samples: Samples) -> None:
        """Learn all blocks from rows of the network's training, in one pass, and scales from others."""
        found = [Spectrum(len(test.mean), test.mean.device) for test in self._each()]
        for piece in samples.train():
            for one, values in zip(found, self._split(piece.values), strict=True):
                if not one.full:
                    one.add(values.double())
            if all(one.full for one in found):
                break
        for test, one in zip(self._each(), found, strict=True):
            test.take(*one.result())
        held = [
            (torch.stack(self._statistics(piece.values)), piece.loss.double()) for piece in samples.held()
        ]
        statistics, losses = torch.cat([one for one, _ in held], dim=1), torch.cat([one for _, one in held])
        for test, one in zip(self._each(), statistics, strict=True):
            test.scale(one, losses)

    def forward(self, features: Features) -> Tensor:
        """Return the scores, (n,) float64, of losses and gradients (n, k)."""
        return self.surprise(features.values) + self.surprise_of_loss(features.loss)

    def surprise(self, values: Tensor) -> Tensor:
        """Return the sum of all layers' surprises, (n,) float64, of gradients (n, k)."""
        parts = zip(self._each(), self._split(values), strict=True)
        return torch.stack([test.surprise(one) for test, one in parts]).sum(0)

    def surprise_of_loss(self, loss: Tensor) -> Tensor:
        """Return how rare losses (n,) are, (n,) float64, high = rare."""
        return self._each()[0].surprise_of_loss(loss)

    def _statistics(self, values: Tensor) -> list[Tensor]:
        return [test.statistic(one) for test, one in zip(self._each(), self._split(values), strict=True)]

    def _split(self, values: Tensor) -> Sequence[Tensor]:
        return torch.split(values, self.widths, dim=1)

    def _each(self) -> list[ScoreTest]:
        return list(self.tests)  # type: ignore[arg-type]
