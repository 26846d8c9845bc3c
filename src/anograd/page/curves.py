"""ROC and precision against recall, with intervals from resampled rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anograd.evaluate import ranking

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RATES = np.linspace(0, 1, 201)
RECALLS = np.linspace(0, 1, 101)[1:]
RESAMPLES = (100, 300)  # at least and at most
WORK = 30_000_000  # rows drawn, about: so that many rows do not take minutes


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A step curve and the 95 % band of it, pointwise.

    Attributes
    ----------
    x, y, low, high : ndarray, (c,)
    """

    x: Floats
    y: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Ranked:
    """How well one score ranks rows.

    Attributes
    ----------
    auroc, average_precision : Estimate
    roc : Curve
        Anomalies found against false alarms, both as shares.
    precision : Curve
        Against recall.
    """

    auroc: Estimate
    average_precision: Estimate
    roc: Curve
    precision: Curve


@dataclass(frozen=True)
class Comparison:
    """A score, and what it is compared with on the same resampled rows.

    Attributes
    ----------
    score : Ranked
    twin : Ranked, optional
    auroc, average_precision : Estimate, optional
        How much better the score is than the twin.
    resamples : int
    """

    score: Ranked
    twin: Ranked | None
    auroc: Estimate | None
    average_precision: Estimate | None
    resamples: int


def compare(scores: Floats, twin: Floats | None, odd: Bools, *, seed: int = 0) -> Comparison:
    """Return how well scores rank rows, with bootstrap intervals: rows of either kind are drawn anew.

    Parameters
    ----------
    scores : ndarray, (n,)
        High = anomalous.
    twin : ndarray, (n,), optional
    odd : ndarray of bool, (n,)
        The truth; both kinds must occur.
    seed : int
    """
    resamples = int(np.clip(WORK // len(odd), *RESAMPLES))
    ours, drawn = _ranked(scores, odd, resamples, seed)
    if twin is None:
        return Comparison(ours, None, None, None, resamples)
    other, beside = _ranked(twin, odd, resamples, seed)
    gains = drawn - beside  # of the same rows: the same seed draws them
    return Comparison(
        ours,
        other,
        _estimate(ours.auroc.value - other.auroc.value, gains[:, 0]),
        _estimate(ours.average_precision.value - other.average_precision.value, gains[:, 1]),
        resamples,
    )


def _ranked(scores: Floats, odd: Bools, resamples: int, seed: int) -> tuple[Ranked, Floats]:
    """Return a ranking, and AUROC and average precision of each resample, (resamples, 2)."""
    rng = np.random.default_rng(seed)
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # last row of equal scores
    truth = odd[order]
    kinds = np.flatnonzero(odd), np.flatnonzero(~odd)
    values = np.empty((resamples, 2))
    bands = np.empty((resamples, len(RATES))), np.empty((resamples, len(RECALLS)))
    weight = np.empty(len(odd))
    for i in range(resamples):
        for rows in kinds:
            weight[rows] = np.bincount(rng.integers(len(rows), size=len(rows)), minlength=len(rows))
        values[i], bands[0][i], bands[1][i] = _shape(weight[order], truth, ends)
    _, roc, precision = _shape(np.ones(len(odd)), truth, ends)
    auroc, average_precision = ranking(scores, odd)
    ranked = Ranked(
        _estimate(auroc, values[:, 0]),
        _estimate(average_precision, values[:, 1]),
        _curve(RATES, roc, bands[0]),
        _curve(RECALLS, precision, bands[1]),
    )
    return ranked, values


def _shape(
    weight: Floats, truth: Bools, ends: NDArray[np.intp]
) -> tuple[tuple[float, float], Floats, Floats]:
    """Return AUROC and average precision, recall at `RATES`, and precision at `RECALLS`."""
    found = np.cumsum(weight * truth)[ends]
    false = np.cumsum(weight * ~truth)[ends]
    recall, rate = np.append(0.0, found / found[-1]), np.append(0.0, false / false[-1])
    precision = found / np.maximum(found + false, 1.0)
    auroc = float(np.sum(np.diff(rate) * (recall[1:] + recall[:-1]) / 2))
    average_precision = float(np.sum(np.diff(recall) * precision))
    reached = np.searchsorted(rate, RATES, side="right") - 1
    needed = np.minimum(np.searchsorted(recall[1:], RECALLS - 1e-12, side="left"), len(precision) - 1)
    return (auroc, average_precision), recall[reached], precision[needed]


def _estimate(value: float, drawn: Floats) -> Estimate:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def _curve(x: Floats, y: Floats, drawn: Floats) -> Curve:
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return Curve(x, y, low, high)
