"""The score test: how much larger a row's gradient is than normal rows let expect."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anograd.alarm.fusion import Surprise
from anograd.features import Features, Samples
from anograd.spectrum import spectrum

TINY = 1e-30


class ScoreTest(nn.Module):
    """g' (F + ridge)^-1 g, joined by Fisher's method with how untypical the loss is; high = anomalous.

    F, the Fisher information, is the second moment of normal rows' gradients: its diagonal, or all of it
    where gradients are projected to few numbers. The two statistics become surprises (1 - log of a smooth
    p value) by normal rows that F was not fitted to, and the surprises are added.

    Parameters
    ----------
    features : int
        Gradient entries k.
    projected : bool, default False
        Take all of F instead of its diagonal.
    ridge : float, default 0.1
        In units of the mean diagonal entry of F.

    Attributes
    ----------
    directions : torch.Tensor, (k, r)
        Eigenvectors of F, orthonormal; (0, 0) for the diagonal.
    precision : torch.Tensor, (r,) or (k,)
        One over (F + ridge).
    rest : torch.Tensor, ()
        The same for what lies outside the directions.
    typical : torch.Tensor, ()
        Mean loss of normal rows.

    References
    ----------
    Bergamin et al., "Model-agnostic out-of-distribution detection using combined statistical tests",
    AISTATS 2022, arXiv:2203.01097.
    """

    directions: Tensor
    precision: Tensor
    rest: Tensor
    typical: Tensor

    def __init__(self, features: int, *, projected: bool = False, ridge: float = 0.1) -> None:
        super().__init__()
        self.projected, self.ridge = projected, ridge
        self.register_buffer("directions", torch.zeros(0, 0, dtype=torch.float64))
        self.register_buffer("precision", torch.ones(features, dtype=torch.float64))
        self.register_buffer("rest", torch.ones((), dtype=torch.float64))
        self.register_buffer("typical", torch.zeros((), dtype=torch.float64))
        self.of_gradient, self.of_loss = Surprise(), Surprise()

    def fit(self, samples: Samples) -> None:
        """Learn F from rows of the network's training, and both scales from rows held out from it."""
        if self.projected:
            self._fit_directions(samples)
        else:
            count, squares = 0, torch.zeros_like(self.precision)
            for piece in samples.train():
                count += len(piece.values)
                squares += piece.values.double().square().sum(0)
            information = squares / count
            self.precision = 1 / (information + self.ridge * information.mean() + TINY)
        held = [(self.statistic(piece.values), piece.loss.double()) for piece in samples.held()]
        statistics, losses = (torch.cat(parts) for parts in zip(*held, strict=True))
        self.typical = losses.mean()
        self.of_gradient.fit(statistics)
        self.of_loss.fit((losses - self.typical).abs())

    def _fit_directions(self, samples: Samples) -> None:
        features = len(self.precision)
        pieces = (piece.values.double() for piece in samples.train())
        information, axes, _ = spectrum(pieces, features, self.precision.device, centred=False)
        ridge = self.ridge * information.sum() / features + TINY
        self.directions, self.precision, self.rest = axes, 1 / (information + ridge), 1 / ridge

    def statistic(self, values: Tensor) -> Tensor:
        """Return g' (F + ridge)^-1 g / k, (n,) float64, high = anomalous, of gradients (n, k)."""
        g = values.double()
        if not self.projected:
            return (g.square() * self.precision).mean(1)
        along = (g @ self.directions).square()
        outside = (g.square().sum(1) - along.sum(1)).clamp_min(0)
        return ((along * self.precision).sum(1) + outside * self.rest) / g.shape[1]

    def forward(self, features: Features) -> Tensor:
        """Return the scores, (n,) float64, of losses and gradients (n, k)."""
        untypical = (features.loss.double() - self.typical).abs()
        surprise: Tensor = self.of_gradient(self.statistic(features.values)) + self.of_loss(untypical)
        return surprise
