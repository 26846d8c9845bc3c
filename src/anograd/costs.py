"""The line that costs least: false alarms of normal rows, misses, and how common anomalies are."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
FEWEST = 10  # known anomalies; with fewer, single ones decide
LARGEST = 1e100  # cost, so that those of all rows have a sum
ASSUMED = 1.0  # anomalies that nobody has seen, spread as the curve through the known ones says


@dataclass(frozen=True)
class Anomalies:
    """What is known of anomalies to come: how some score, and how common they are.

    Parameters
    ----------
    scores : ndarray (k,)
        Of anomalies that `fit` has not seen, high = anomalous.
    prevalence : float
        Share of the anomalies among the rows to come, between 0 and 1.

    Raises
    ------
    ValueError
        Fewer than 10 of them, or a prevalence out of range.
    """

    scores: Floats
    prevalence: float

    def __post_init__(self) -> None:
        if len(self.scores) < FEWEST:
            raise ValueError(
                f"{len(self.scores)} known anomalies were given to calibrate with; at least {FEWEST} are "
                "wanted, better 50, so that costs do not hang on single ones: leave them out, or label more"
            )
        given = isinstance(self.prevalence, Real) and not isinstance(self.prevalence, bool)
        if not given or not 0 < self.prevalence < 1:
            raise ValueError(
                f"prevalence={self.prevalence!r} was given; the share of anomalies among the rows to come is "
                "wanted, between 0 and 1: prevalence=0.01"
            )

    def threshold(self, normal: Floats, costs: tuple[float, float]) -> float:
        """Return the score above which an alarm costs less than none, on average; infinity where none does.

        A row's expected cost is ``false_alarm * (1 - prevalence) * F + miss * prevalence * M``. F is the
        share of the normal rows above the threshold, one more counted among them as in a p value: that none
        of 99 lies there does not make alarms free. M is the share of the known anomalies below it, with
        one more that is assumed: its p value is at most f with probability ``f ** power``, the power being
        that of the known ones. Without it the line might be drawn right below the lowest of a handful, as
        if none could score lower.

        Parameters
        ----------
        normal : ndarray (m,)
            Scores of held-out normal rows, sorted ascending.
        costs : tuple of float
            Of a false alarm and of a miss.
        """
        false_alarm, miss = costs
        m, k, odd = len(normal), len(self.scores), np.sort(self.scores)
        lines = np.concatenate([[-np.inf], np.unique(np.concatenate([normal, odd])), [np.inf]])
        alarms = (1 + m - np.searchsorted(normal, lines, side="right")) / (m + 1)
        alarms[-1] = 0.0
        p = (1 + m - np.searchsorted(normal, odd, side="left")) / (m + 1)
        power = min((k + 1) / (1 - np.log(p).sum()), 1.0)
        unseen = 1 - alarms**power
        missed = (np.searchsorted(odd, lines, side="right") + ASSUMED * unseen) / (k + ASSUMED)
        cost = false_alarm * (1 - self.prevalence) * alarms + miss * self.prevalence * missed
        (best,) = np.nonzero(cost <= cost.min() * (1 + 1e-12))
        chosen = int(best[len(best) // 2])
        if chosen in (0, len(lines) - 1):
            return float(lines[chosen])
        middle = lines[chosen] / 2 + lines[chosen + 1] / 2
        return float(middle if np.isfinite(middle) else lines[chosen])  # the highest score known


def pair(costs: Any) -> tuple[float, float]:
    """Return the costs of a false alarm and of a miss; text such as "1:50" is taken, too.

    Parameters
    ----------
    costs : pair of float, or str

    Raises
    ------
    ValueError
        Anything but two numbers above 0, 1e100 at most.

    Examples
    --------
    >>> pair("1:50"), pair((2, 3))
    ((1.0, 50.0), (2.0, 3.0))
    """
    try:
        first, second = costs.split(":") if isinstance(costs, str) else costs
        given = (float(first), float(second))
        plain = isinstance(costs, str) or all(isinstance(one, Real) for one in (first, second))
        if plain and all(0 < one <= LARGEST for one in given):
            return given
    except (TypeError, ValueError, AttributeError):
        pass
    raise ValueError(
        f"costs={costs!r} was given; the costs of a false alarm and of a miss are wanted, two numbers above "
        "0, 1e100 at most: costs=(1, 50)"
    )


def least(scores: ArrayLike, odd: ArrayLike, costs: tuple[float, float]) -> float:
    """Return the cost of the best threshold there is for rows whose truth is known: no rule can cost less.

    Parameters
    ----------
    scores : array (n,)
        High = anomalous.
    odd : array (n,) of bool
        The truth: True = anomalous.
    costs : tuple of float
        Of a false alarm and of a miss.

    Examples
    --------
    >>> least([0.1, 0.2, 0.3, 0.9], [False, True, False, True], (1, 50))
    1.0
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(odd, dtype=bool)
    lines = np.unique(values)  # an alarm above each of them, or for all rows
    normal, anomalous = np.sort(values[~truth]), np.sort(values[truth])
    false_alarms = len(normal) - np.searchsorted(normal, lines, side="right")
    misses = np.searchsorted(anomalous, lines, side="right")
    return float((costs[0] * false_alarms + costs[1] * misses).min(initial=costs[0] * len(normal)))
