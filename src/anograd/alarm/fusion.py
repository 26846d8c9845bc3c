"""Scores of one row become one: surprises on one scale, added with a weight that known anomalies choose.

A surprise is 1 - log of the share of normal rows that score at least as high: 1 for the least surprising
row, one more for each factor e in rarity. Sums of them are Fisher's way to combine p values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anograd import evaluate

KNOTS = 64
TAIL = 0.1  # the share of normal rows that the line beyond the last knot is fitted to
# The largest that cost at most 0.005 of mean AUROC and of mean average precision on data sets other than
# those reported, where all kinds of anomalies were known.
TOLERANCE = 0.15
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# A handful of known anomalies says little of the weight, and those hidden among the normal rows, which the
# novelty takes for normal, say nothing: it may grow with the known ones, from a fallback up.
FALLBACK, KNOWN_PER_WEIGHT = 0.25, 50
NETWORKS = 0.25  # what the alarm networks count beside a forest, which counts 1: chosen as the forest was
SHARES = (0.0, 0.25, 0.5)  # of the alarm networks that read gradients beside those that read columns
Floats = NDArray[np.float64]


class Surprise(nn.Module):
    """How rare a score is among those of normal rows, high = rare; continuous, never saturated.

    1 at the lowest of the normal scores and down to a half below it, linear between their quantiles, and
    beyond the highest decile an exponential tail.

    Attributes
    ----------
    knots, values : torch.Tensor, (64,)
        Scores, ascending, and their surprises.
    slope : torch.Tensor, ()
        Beyond the last knot.
    """

    knots: Tensor
    values: Tensor
    slope: Tensor

    def __init__(self) -> None:
        super().__init__()
        # By NumPy, since torch, to make it on its device "meta", first loads what takes most of a second.
        self.register_buffer("knots", torch.from_numpy(np.linspace(0, 1, KNOTS)))
        self.register_buffer("values", torch.ones(KNOTS, dtype=torch.float64))
        self.register_buffer("slope", torch.ones((), dtype=torch.float64))

    @torch.no_grad()
    def fit(self, scores: Tensor, unit: float = 1.0) -> None:
        """Learn the scale from scores of normal rows, (m,), that nothing else was fitted to.

        A millionth of `unit` and of the largest score is no difference: rounding.
        """
        ordered = scores.double().sort().values
        shares = torch.linspace(0, 1 - TAIL, KNOTS, dtype=torch.float64, device=ordered.device)
        knots = torch.quantile(ordered, shares)
        # Knots that fall together (equal scores) are drawn apart a little: a jump would let rounding decide.
        spread = (ordered[-1] - ordered[0]).clamp_min(1e-6 * (unit + float(ordered.abs().max())))
        apart = 1e-3 * spread * torch.arange(KNOTS, dtype=torch.float64, device=ordered.device) / KNOTS
        knots = knots + apart
        beyond = ordered[ordered >= knots[-1]]
        excess = (beyond - knots[-1]).mean() if len(beyond) else spread.new_zeros(())
        self.knots.copy_(knots)
        self.values.copy_(1 - torch.log1p(-shares))
        self.slope.copy_(1 / excess.clamp_min(1e-2 * spread))

    def forward(self, scores: Tensor) -> Tensor:
        """Return the surprises, (n,) float64, high = anomalous, of scores (n,)."""
        x = scores.double()
        i = torch.searchsorted(self.knots, x.contiguous()).clamp(1, KNOTS - 1)
        low, high = self.knots[i - 1], self.knots[i]
        share = ((x - low) / (high - low)).clamp(0, 1)
        between = self.values[i - 1] + share * (self.values[i] - self.values[i - 1])
        # Below all normal scores the order is kept, ever more slowly.
        below = (self.knots[0] - x).clamp_min(0) / (self.knots[-1] - self.knots[0])
        beyond = (x - self.knots[-1]).clamp_min(0)
        return between + self.slope * beyond - 0.5 / (1 + 1 / below)


def try_weights(
    alarms: Sequence[tuple[Floats, Floats]], novelties: tuple[Floats, Sequence[Floats]]
) -> list[dict[str, float]]:
    """Return how each weight of the novelty ranks left-out known anomalies, one dict a weight.

    Parameters
    ----------
    alarms : sequence of (normal (m,), anomalous (a,))
        Surprises by the alarm networks, each with the known anomalies that it did not learn from.
    novelties : (normal (m,), sequence of anomalous (a,))
        Surprises by the novelty of the same rows.
    """
    normal, anomalous = novelties
    measured = []
    for weight in WEIGHTS:
        found = [
            ranking(own + weight * normal, odd + weight * beside)
            for (own, odd), beside in zip(alarms, anomalous, strict=True)
        ]
        auroc, precision = np.mean(found, axis=0)
        measured.append({"weight": weight, "auroc": float(auroc), "average_precision": float(precision)})
    return measured


def choose(tried: Sequence[dict[str, float]], known: int) -> dict[str, float]:
    """Return the one to take of what was tried, each with a "share" of gradients and a "weight" of novelty.

    Of those that rank left-out known anomalies nearly as well as the best, the one with the largest weight:
    what nobody has labelled yet is left to the novelty as far as the known anomalies allow. The fewer they
    are, the more is "nearly"; and the weight is one for each 50 of them at most, or a quarter. Of several
    such it is the one with the least share, since networks that read gradients take half of the time of a
    score.
    """
    tried = [one for one in tried if one["weight"] <= largest_weight(known)]
    nearly = max(map(quality, tried)) - TOLERANCE / math.sqrt(known)
    allowed = [one for one in tried if quality(one) >= nearly]
    return max(allowed, key=lambda one: (one["weight"], -one["share"]))


def surprises(normal: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return surprises of scores of normal rows (m,), on their own scale, and of others (a,); on the CPU."""
    scale = Surprise()
    scale.fit(normal.cpu())
    return scale(normal.cpu()), scale(others.cpu())


def beside(forest: Tensor, networks: Tensor) -> Tensor:
    """Return the surprise by the two that learn from known anomalies, (n,), from that by each."""
    return (forest + NETWORKS * networks) / (1 + NETWORKS)


def largest_weight(known: int) -> float:
    """Return the largest weight of the novelty that a number of known anomalies can choose."""
    return max(FALLBACK, known / KNOWN_PER_WEIGHT)


def quality(tried: Mapping[str, float]) -> float:
    """Return how well left-out known anomalies were ranked, 0 to 2: AUROC plus average precision."""
    return tried["auroc"] + tried["average_precision"]


def ranking(normal: Floats, anomalous: Floats) -> tuple[float, float]:
    """Return AUROC and average precision of scores of normal rows (m,) and anomalies (a,)."""
    odd = np.repeat([False, True], [len(normal), len(anomalous)])
    return evaluate.ranking(np.concatenate([normal, anomalous]), odd)
