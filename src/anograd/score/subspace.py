"""How much of a row's gradient lies outside of the few directions in which those of normal rows vary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anograd.features import Features, Samples
from anograd.spectrum import spectrum

TINY = 1e-30


class Subspace(nn.Module):
    """The log squared length of what is left of a gradient outside normal rows' subspace, high = anomalous.

    Parameters
    ----------
    features : int
        Gradient entries k.
    explained : float, default 0.95
        Share of normal gradients' variance that the subspace takes in.

    Attributes
    ----------
    mean : torch.Tensor, (k,)
    directions : torch.Tensor, (k, r)
        Orthonormal, by falling variance.

    References
    ----------
    Behpour et al., "GradOrth: A Simple yet Efficient Out-of-Distribution Detection with Orthogonal
    Projection of Gradients", NeurIPS 2023, arXiv:2308.00310; "GradPCA", arXiv:2505.16017.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, features: int, *, explained: float = 0.95) -> None:
        super().__init__()
        self.explained = explained
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("directions", torch.zeros(features, 0, dtype=torch.float64))

    def fit(self, samples: Samples) -> None:
        """Learn mean and directions from normal rows."""
        pieces = (piece.values.double() for piece in samples.train())
        variance, axes, self.mean = spectrum(pieces, len(self.mean), self.mean.device)
        total = variance.cumsum(0)
        kept = int((total < self.explained * total[-1]).sum()) + int(total[-1] > 0)
        # All directions would leave nothing outside.
        self.directions = axes[:, : min(kept, max(1, len(variance) - 1))].contiguous()

    def forward(self, features: Features) -> Tensor:
        """Return the scores, (n,) float64, of gradients (n, k)."""
        centred = features.values.double() - self.mean
        outside = centred - (centred @ self.directions) @ self.directions.T
        return outside.square().sum(1).clamp_min(TINY).log()
