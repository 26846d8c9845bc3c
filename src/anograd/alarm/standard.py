"""Raw gradients -> comparable features, and how far a row's features lie from those of normal rows.

Gradient entries differ in size by many powers of ten, between layers and between rows. Each is divided by
its spread over normal rows and put on a signed logarithmic scale.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anograd.spectrum import spectrum

MOST_DIRECTIONS = 128
RIDGE = 0.1  # of the mean variance; chosen on other data sets than those reported
TINY = 1e-12


class Standard(nn.Module):
    """The map from gradient entries, or other numbers of a row, to standardised, signed-log features.

    Parameters
    ----------
    *sizes : int
        Entries of each kind; kinds do not share a scale.

    Attributes
    ----------
    mean, spread : torch.Tensor, (entries,)
        Of normal rows; of each checkpoint by itself, where the paper's batch norm pools them.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.register_buffer("mean", torch.zeros(sum(sizes)))
        self.register_buffer("spread", torch.ones(sum(sizes)))

    @torch.no_grad()
    def fit(self, pieces: Iterable[Tensor], floor: float = 1e-6) -> None:
        """Learn mean and spread from one pass over normal rows, each piece (b, entries).

        A spread counts as `floor` of the largest at least: more than entries are rounded by.
        """
        count = 0
        total = square = shift = self.mean.new_zeros(self.mean.shape, dtype=torch.float64)
        for piece in pieces:
            if not count:  # sums of squares far from zero would lose digits
                shift = piece.double().mean(0)
            centred = piece.double() - shift
            count += len(piece)
            total = total + centred.sum(0)
            square = square + centred.square().sum(0)
        mean = total / count
        self.mean.copy_(shift + mean)
        spread = (square / count - mean.square()).clamp_min(0).sqrt()
        # An entry that never moves on normal rows says a lot when it does, but not infinitely much.
        floored = [
            kind.clamp_min(floor * kind.max() + TINY) for kind in torch.split(spread, list(self.sizes))
        ]
        self.spread.copy_(torch.cat(floored))

    def forward(self, entries: Tensor) -> Tensor:
        """Return the features, of the shape of the entries, (n, entries)."""
        standard = (entries - self.mean).div_(self.spread)
        return torch.copysign(standard.abs().log1p_(), standard)


class Novelty(nn.Module):
    """How far features lie from those of normal rows, whatever the known anomalies look like.

    The logarithm of the mean squared whitened distance: along the directions of largest variance
    each counts in units of its own spread, and all others in one common unit.

    Parameters
    ----------
    features : int
        How many to read, T * k; what comes after them is left aside.

    Attributes
    ----------
    mean : torch.Tensor, (features,)
    directions : torch.Tensor, (features, r)
        Orthonormal; beyond as many as there were normal rows, zero.
    precision : torch.Tensor, (r,)
        One over the variance along each, a ridge added.
    rest : torch.Tensor, ()
        The same for whatever lies outside of them.
    """

    mean: Tensor
    directions: Tensor
    precision: Tensor
    rest: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        kept = min(features, MOST_DIRECTIONS)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("directions", torch.zeros(features, kept))
        self.register_buffer("precision", torch.zeros(kept))
        self.register_buffer("rest", torch.ones(()))

    @torch.no_grad()
    def fit(self, pieces: Iterable[Tensor]) -> None:
        """Learn the directions from one pass over features of normal rows, each piece (b, features)."""
        features, kept = self.directions.shape
        variance, axes, mean = spectrum((piece[:, :features] for piece in pieces), features, self.mean.device)
        missing = max(0, kept - len(variance))  # fewer rows than directions: the others are of no length
        variance, axes = F.pad(variance, (0, missing)), F.pad(axes, (0, missing))
        ridge = RIDGE * variance.sum() / features + TINY
        outside = variance[kept:].sum() / max(1, features - kept)
        self.mean.copy_(mean)
        self.directions.copy_(axes[:, :kept])
        self.rest.copy_(1 / (outside + ridge))
        self.precision.copy_(1 / (variance[:kept] + ridge))

    def forward(self, features: Tensor) -> Tensor:
        """Return the novelty, (n,), high = anomalous, of features (n, T * k or more)."""
        centred = features[:, : len(self.mean)] - self.mean
        along = (centred @ self.directions).square()
        outside = (centred.square().sum(1) - along.sum(1)).clamp_min(0)
        # Not a product of matrix and vector, in which a row's rounding would depend on its place.
        distance = (along * self.precision).sum(1) + outside * self.rest
        return (distance / len(self.mean)).clamp_min(TINY).log()
