"""How unlikely the lengths of a row's gradients are, layer by layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anograd.features import Features, Samples
from anograd.gradients import PerSample

FLOOR = 1e-12  # of a usual squared length, so that a row without gradient has a logarithm
LEAST = 1e-36  # usual squared length: those of shorter gradients are lost in single precision
SHORT = 1e-2  # of a usual length: float32 then leaves few digits of the logarithm
LEAST_SPREAD = 1e-2  # of a logarithm: a layer that never moves says a lot when it does, not infinitely much


def least_squares(norms: Tensor) -> Tensor:
    """Return what squared lengths count as at least, (l,), by the lengths of normal rows, (n, l)."""
    usual = norms.double().square().mean(0).clamp_min(LEAST)
    return FLOOR * usual.maximum(FLOOR * usual.max())  # of a layer that never moves, by the others


def log_squares(norms: Tensor, floor: Tensor) -> Tensor:
    """Return the logarithms of squared lengths, (n, l) as the lengths are, in double precision."""
    return norms.double().square().maximum(floor).log()


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, (l,), of logarithms, (n, l)."""
    return rows.mean(0), rows.std(0, correction=0).clamp_min(LEAST_SPREAD)


def shorter(norms: Tensor | None, mean: Tensor) -> Tensor:
    """Return which rows have a gradient far shorter than usual, (n,) bool, its summands cancelling.

    Parameters
    ----------
    norms : torch.Tensor, (n, l)
    mean : torch.Tensor, (l,)
        Of the logarithms of squared lengths.
    """
    assert norms is not None
    return (norms < SHORT * (0.5 * mean).exp().to(norms)).any(1)


class NormDensity(nn.Module):
    """The negative log density of a row's gradient lengths, high = anomalous.

    The logarithm of each parameter's squared gradient length is taken to be normally distributed over
    normal rows, and the parameters to be independent.

    Parameters
    ----------
    parameters : int
        Columns l.

    Attributes
    ----------
    mean, spread : torch.Tensor, (l,)
        Of the logarithms, over normal rows.
    floor : torch.Tensor, (l,)
        What a squared length counts as at least.

    References
    ----------
    Dauncey et al., "Approximations to the Fisher Information Metric of Deep Generative Models for
    Out-Of-Distribution Detection", TMLR 2024, arXiv:2403.01485.

    Examples
    --------
    >>> density = NormDensity(1)
    >>> round(float(density(Features(torch.zeros(1), torch.ones(1, 1)))[0]), 4)  # at the mean: log sqrt(2 pi)
    0.9189
    """

    mean: Tensor
    spread: Tensor
    floor: Tensor

    def __init__(self, parameters: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(parameters, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(parameters, dtype=torch.float64))
        self.register_buffer("floor", torch.zeros(parameters, dtype=torch.float64))

    def fit(self, samples: Samples) -> None:
        """Learn mean and spread of the logarithms from normal rows."""
        norms = torch.cat([piece.values for piece in samples.train()])
        self.floor = least_squares(norms)
        self.mean, self.spread = moments(log_squares(norms, self.floor))

    def unsure(self, found: PerSample) -> Tensor:
        """Return which rows' lengths want more digits than float32 has, (n,) bool."""
        return shorter(found.norm, self.mean)

    def forward(self, features: Features) -> Tensor:
        """Return the scores, (n,) float64, of lengths (n, l)."""
        z = (log_squares(features.values, self.floor) - self.mean) / self.spread
        return (0.5 * z.square() + self.spread.log() + 0.5 * math.log(2 * math.pi)).sum(1)
