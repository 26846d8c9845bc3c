"""Scores and alarms against the truth: how well the rows are ranked, and what the alarms are worth."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from anograd.data import to_array


@dataclass(frozen=True)
class Evaluation:
    """What scores and alarms are worth where the truth is known.

    Parameters
    ----------
    normal, anomalous : int
        How many rows there are of each.
    auroc : float
        Probability that an anomaly scores higher than a normal row; 0.5 is chance.
    average_precision : float
        Area under precision against recall; the share of anomalies is chance.
    alarms : int
        How many were raised.
    found : int
        How many of them are anomalies.
    interval : tuple of float
        Exact binomial 95 % interval of the false-alarm rate.
    """

    normal: int
    anomalous: int
    auroc: float
    average_precision: float
    alarms: int
    found: int
    interval: tuple[float, float]

    def cost(self, costs: tuple[float, float]) -> float:
        """Return what false alarms and misses cost together.

        Parameters
        ----------
        costs : tuple of float
            Of one false alarm and of one miss.
        """
        return costs[0] * (self.alarms - self.found) + costs[1] * (self.anomalous - self.found)

    @property
    def precision(self) -> float | None:
        """Share of the alarms that are anomalies; None where no alarm was raised."""
        return self.found / self.alarms if self.alarms else None

    @property
    def recall(self) -> float:
        """Share of the anomalies that raised an alarm."""
        return self.found / self.anomalous

    @property
    def false_alarm_rate(self) -> float:
        """Share of the normal rows that raised an alarm."""
        return (self.alarms - self.found) / self.normal


def evaluate(scores: ArrayLike, odd: ArrayLike, alarms: ArrayLike) -> Evaluation:
    """Return what scores, high = anomalous, and alarms are worth.

    Parameters
    ----------
    scores : array (n,)
        As from ``detector.anomaly_score(X)``.
    odd : array (n,) of bool
        The truth: True = anomalous.
    alarms : array (n,) of bool
        As from ``detector.detect(X)``.

    Raises
    ------
    ValueError
        Unlike lengths, other values than booleans or 0 and 1, rows of one kind only, or NaN among the scores.

    Examples
    --------
    >>> found = evaluate([0.1, 0.9, 0.2, 0.3], [False, True, False, True], [False, True, True, False])
    >>> found.auroc, found.precision, found.recall, found.false_alarm_rate
    (1.0, 0.5, 0.5, 0.5)
    """
    truth, raised = _yes_or_no(odd, "the truth"), _yes_or_no(alarms, "alarms")
    if raised.all() and raised.size and _array(alarms, "alarms").dtype.kind != "b":
        raise ValueError(
            "alarms holds nothing but 1: an alarm for every row, or for none in scikit-learn's code; give "
            "booleans: detector.detect(X), or detector.predict(X) == -1"
        )
    auroc, average_precision = ranking(scores, truth)
    if raised.shape != truth.shape:
        raise ValueError(
            f"alarms of shape {raised.shape} were given for {len(truth)} rows; one a row is wanted: "
            "alarms = detector.detect(X)"
        )
    normal, false = int((~truth).sum()), int((raised & ~truth).sum())
    interval = binomtest(false, normal).proportion_ci(0.95, method="exact")
    return Evaluation(
        normal=normal,
        anomalous=int(truth.sum()),
        auroc=auroc,
        average_precision=average_precision,
        alarms=int(raised.sum()),
        found=int((raised & truth).sum()),
        interval=(float(interval.low), float(interval.high)),
    )


def _yes_or_no(given: ArrayLike, what: str) -> NDArray[np.bool_]:
    """Return booleans as they are, and 0 and 1 as such; other codes would all count as True."""
    array = _array(given, what)
    if array.dtype.kind == "O":  # such as booleans of pandas with a cell missing, which compare with nothing
        numbers = [one if isinstance(one, Number | np.bool_) else np.nan for one in array.ravel()]
        array = np.array(numbers).reshape(array.shape)
    if array.dtype.kind not in "b" and not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"{what} holds other values than False / True or 0 / 1, where True is an anomaly or alarm; in "
            "scikit-learn's code +1 / -1 that is: values == -1"
        )
    return array.astype(bool)


def _array(given: ArrayLike, what: str) -> NDArray[Any]:
    """Return an array, of a tensor with a graph, too; a mask would be lost."""
    if isinstance(given, np.ma.MaskedArray):
        raise ValueError(f"{what} is a masked array, whose mask would be lost: leave those rows out of all")
    return np.asarray(to_array(given))


def ranking(scores: ArrayLike, odd: ArrayLike) -> tuple[float, float]:
    """Return AUROC and average precision of scores, high = anomalous.

    Parameters
    ----------
    scores : array (n,)
    odd : array (n,) of bool
        The truth: True = anomalous.

    Raises
    ------
    ValueError
        Unlike lengths, rows of one kind only, or NaN among the scores.
    """
    values, truth = _array(scores, "scores").astype(np.float64), _yes_or_no(odd, "the truth")
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(
            f"scores of shape {values.shape} and truth of shape {truth.shape} were given; one of each a row "
            "is wanted, shape (n,)"
        )
    if truth.all() or not truth.any():
        kind = "anomalous" if len(truth) and truth.all() else "normal"
        raise ValueError(
            f"all {len(truth)} rows are {kind}, and AUROC compares normal rows with anomalous ones; give "
            "rows of both kinds. Scores alone need no truth: detector.anomaly_score(X), or anograd score"
        )
    if np.isnan(values).any():
        row = int(np.isnan(values).argmax())
        raise ValueError(f"the score of row {row} is NaN, which is neither high nor low; numbers are wanted")
    _, ranks = np.unique(values, return_inverse=True)  # which infinite scores have, too
    return float(roc_auc_score(truth, ranks)), float(average_precision_score(truth, ranks))
