"""Rows with their scores, and what can be counted of them: p values, thresholds, change over time, twin."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, binomtest, spearmanr

from anograd.decide import Calibration, asked, level
from anograd.decoded import Unlike
from anograd.detectors import Detector, unlike

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Share = tuple[float, float, float]  # a share with its exact binomial 95 % interval
ALPHAS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
CHUNKS = 20
IN_A_CHUNK = 5  # rows at least
BINS = 20


@dataclass(frozen=True)
class Scored:
    """What a detector makes of rows.

    Attributes
    ----------
    scores : ndarray, (n,)
        High = anomalous.
    p : ndarray, (n,)
        Low = anomalous.
    alarms : ndarray of bool, (n,)
    rule : dict
        The one rule they were raised by: alpha, fdr, budget or costs.
    calibration : Calibration
        Of the detector.
    titles : sequence of str
        What each row is called.
    odd : ndarray of bool, (n,), optional
        The truth: True = anomalous.
    twin : ndarray, (n,), optional
        The score without gradients, high = anomalous.
    warned : str
        Why the rule could raise no alarm, if so.
    unlike : sequence of Unlike
        Columns in which many rows, normal ones where the truth is known, are unlike those of the fit.
    """

    scores: Floats
    p: Floats
    alarms: Bools
    rule: Mapping[str, Any]
    calibration: Calibration
    titles: Sequence[str]
    odd: Bools | None = None
    twin: Floats | None = None
    warned: str = ""
    unlike: Sequence[Unlike] = ()

    @classmethod
    def by(
        cls,
        detector: Detector,
        X: Any,
        rule: Mapping[str, Any],
        titles: Sequence[str] | None = None,
        odd: Bools | None = None,
    ) -> Self:
        """Return what a detector makes of rows.

        Parameters
        ----------
        detector : Detector
            Fitted.
        X : as for ``fit``
        rule : dict
            One of alpha, fdr, budget and costs.
        titles : sequence of str, optional
            What each row is called; left out, by its number from 0.
        odd : ndarray of bool, (n,), optional
        """
        scores = detector.anomaly_score(X)
        calibration = detector.calibration_
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            alarms = calibration.detect(scores, **rule)
        for one in told:
            warnings.warn(one.message, stacklevel=2)
        return cls(
            scores=scores,
            p=calibration.p_values(scores),
            alarms=alarms,
            rule=rule,
            calibration=calibration,
            titles=titles or [f"row {i}" for i in range(len(scores))],
            odd=odd,
            twin=detector.twin_score(X),
            warned=" ".join(str(one.message) for one in told),
            unlike=unlike(detector, X, normal=None if odd is None else ~odd),
        )

    @property
    def asked(self) -> str:
        """Return the rule in words, such as "alpha 0.05"."""
        return asked(self.rule)

    @cached_property
    def known(self) -> bool:
        """Tell whether rows seem to be among these that the model was fitted to or calibrated with."""
        return self.calibration.within(self.scores)

    @property
    def line(self) -> float | None:
        """Return the score from which alarms were raised, None where none was or could be."""
        if "alpha" in self.rule:
            found = self.calibration.threshold(self.rule["alpha"])
            return found if np.isfinite(found) else None
        if "costs" in self.rule:
            found = self.calibration.line(self.rule["costs"])
            return found if np.isfinite(found) else None
        return float(self.scores[self.alarms].min()) if self.alarms.any() else None

    @property
    def level(self) -> float:
        """Return up to which p value is low: alpha or 0.05, or the smallest that can be reached."""
        return max(float(self.rule.get("alpha", 0.05)), 1 / (len(self.calibration.scores) + 1))

    def highest(self, count: int) -> NDArray[np.int64]:
        """Return the numbers of the rows with the highest scores, highest first.

        Parameters
        ----------
        count : int
        """
        return np.argsort(-self.scores, kind="stable")[:count].astype(np.int64)


def share(count: int, total: int) -> Share | None:
    """Return a share with its exact binomial 95 % interval, None of nothing.

    Parameters
    ----------
    count, total : int

    Examples
    --------
    >>> tuple(round(x, 3) for x in share(1, 20))
    (0.05, 0.001, 0.249)
    """
    if not total:
        return None
    interval = binomtest(count, total).proportion_ci(0.95, method="exact")
    return count / total, float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Level:
    """What a false-alarm rate costs and brings.

    Attributes
    ----------
    alpha : float
    alarms : int, optional
        None where too few calibration rows are there for any.
    expected : float
        False alarms at most, on average; where no truth is known: if all rows were normal.
    found : int, optional
        Anomalies among the alarms, where the truth is known.
    """

    alpha: float
    alarms: int | None
    expected: float
    found: int | None


def levels(scored: Scored, alphas: Sequence[float] = ALPHAS) -> list[Level]:
    """Return what each of several false-alarm rates would raise.

    Parameters
    ----------
    scored : Scored
    alphas : sequence of float
        The rate that was asked for is put among them.
    """
    rates = sorted({*alphas, *([scored.rule["alpha"]] if "alpha" in scored.rule else [])})
    normal = len(scored.scores) if scored.odd is None else int((~scored.odd).sum())
    rows = []
    for alpha in rates:
        reached = 1 / (len(scored.calibration.scores) + 1) <= level(alpha)
        raised = scored.p <= level(alpha)
        found = None if scored.odd is None else int((raised & scored.odd).sum())
        rows.append(Level(alpha, int(raised.sum()) if reached else None, alpha * normal, found))
    return rows


@dataclass(frozen=True)
class PValues:
    """How many p values fall where, and how many would if all rows were normal.

    Attributes
    ----------
    edges : ndarray, (b + 1,)
    normal : ndarray of int, (b,)
        P values in (edge, next edge] of normal rows; of all rows where no truth is known.
    odd : ndarray of int, (b,), optional
        The same of anomalies.
    expected, low, high : ndarray, (b,)
        Mean and central 95 % of what the normal rows would give, were they like the calibration rows.
    tied : int
        Rows that score as some calibration rows do, and were spread by lot over the p values they share.
    """

    edges: Floats
    normal: NDArray[np.int64]
    odd: NDArray[np.int64] | None
    expected: Floats
    low: Floats
    high: Floats
    tied: int

    @property
    def outside(self) -> int:
        """Return how many bins lie outside what is usual."""
        return int(((self.normal < self.low) | (self.normal > self.high)).sum())


def p_values(scored: Scored) -> PValues:
    """Return the p values counted, with what is usual under exchangeability.

    All p values refer to the same m calibration rows, so that counts scatter more than binomial ones: those
    of n normal rows in a bin of k of the m + 1 levels are beta-binomial(n, k, m + 1 - k). That is so where no
    scores are equal, as those of a table of a few categories are; of equal ones lots are drawn.

    Parameters
    ----------
    scored : Scored
    """
    m = len(scored.calibration.scores)
    bins = min(BINS, m + 1)
    equal = scored.calibration.equals(scored.scores)
    # 1 to m + 1; that of the p value is the highest of those that equal scores share.
    level = np.rint(scored.p * (m + 1)).astype(np.int64) - np.random.default_rng(0).integers(equal + 1)
    starts = np.arange(bins + 1) * (m + 1) // bins  # levels up to which a bin reaches
    place = np.searchsorted(starts, level, side="left") - 1
    inside = np.diff(starts)
    odd = np.zeros(len(level), dtype=bool) if scored.odd is None else scored.odd
    n = int((~odd).sum())
    usual = {k: _middle(n, k, m + 1 - k) for k in set(inside.tolist())}
    low, high = np.array([usual[k] for k in inside.tolist()], dtype=np.float64).T
    return PValues(
        edges=starts / (m + 1),
        normal=np.bincount(place[~odd], minlength=bins),
        odd=None if scored.odd is None else np.bincount(place[odd], minlength=bins),
        expected=n * inside / (m + 1),
        low=low,
        high=high,
        tied=int(np.count_nonzero(equal)),
    )


def _middle(n: int, a: int, b: int) -> tuple[float, float]:
    """Return the central 95 % of beta-binomial counts."""
    below = np.cumsum(betabinom.pmf(np.arange(n + 1), n, a, b))
    low, high = np.searchsorted(below, (0.025, 0.975))
    return float(low), float(min(high, n))


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows: the numbers of the first and the last, how many p values are low, and their share."""

    first: int
    last: int
    low: int
    share: Share
    p: float  # median


def chunks(scored: Scored, count: int = CHUNKS) -> list[Chunk]:
    """Return how many p values are at `level` or below in consecutive chunks, none where rows are too few.

    By alpha these are the alarms. Other rules may raise too few to tell one chunk from another.

    Parameters
    ----------
    scored : Scored
    count : int
        Chunks at most.
    """
    n = len(scored.scores)
    count = min(count, n // IN_A_CHUNK)
    if count < 2:
        return []
    found = []
    for rows in np.array_split(np.arange(n), count):
        low = int((scored.p[rows] <= scored.level).sum())
        of_rows = share(low, len(rows))
        assert of_rows is not None
        found.append(Chunk(int(rows[0]), int(rows[-1]), low, of_rows, float(np.median(scored.p[rows]))))
    return found


@dataclass(frozen=True)
class Agreement:
    """How far the score without gradients tells the same.

    Attributes
    ----------
    spearman : float, optional
        Correlation of the ranks; None where one of the two is the same for all rows.
    alarms : int
    same : int
        Alarms that are also among as many of the highest scores without gradients.
    """

    spearman: float | None
    alarms: int
    same: int


def agreement(scored: Scored) -> Agreement | None:
    """Return how far the score without gradients tells the same, None where there is none.

    Parameters
    ----------
    scored : Scored
    """
    if scored.twin is None:
        return None
    varied = len(scored.twin) > 1 and all(float(np.ptp(x)) > 0 for x in (scored.scores, scored.twin))
    alarms = int(scored.alarms.sum())
    first = np.argsort(-scored.twin, kind="stable")[:alarms]
    return Agreement(
        float(spearmanr(scored.scores, scored.twin).statistic) if varied else None,
        alarms,
        int(scored.alarms[first].sum()),
    )
