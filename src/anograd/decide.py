"""A score becomes a verdict: conformal p values, a threshold, and alarms at a stated rate."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from anograd.costs import Anomalies, pair

# How far scores of equal rows may lie apart, of their size: a float32 sum depends on its order, and that on
# where in a batch a row stands.
ROUNDING = 1e-6

# How many calibration scores, and what share of them, tell that rows were calibrated with.
FEWEST, MOST = 20, 0.9

MORE_ROWS = "hold out more rows (a larger `calibration=`) or call `calibrate(more_normal_rows)`"


def size_of_calibration(n: int, share: float) -> int:
    """Return how many of n normal rows to hold out of training for calibration, 1 to n - 1.

    Parameters
    ----------
    n : int
        Normal rows at hand, at least 2.
    share : float
        Share of them to hold out, between 0 and 1.

    Raises
    ------
    ValueError
        One row cannot be both trained on and calibrated with; give at least two.

    Examples
    --------
    >>> size_of_calibration(1000, 0.2)
    199
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share!r} was given; a number between 0 and 1 is wanted, such as 0.2")
    if n < 2:
        raise ValueError(
            f"{n} sample{'s' * (n != 1)} of normal data given; at least 2 are wanted, one to train on and "
            "one to calibrate the threshold with"
        )
    size = int(share * n + 1e-9)  # 0.29 * 100 is a little less than 29
    if size >= 19:
        # p values are multiples of 1 / (m + 1): with m + 1 a multiple of 20 the levels 0.05 and 0.10 are
        # among them, and the false-alarm rate meets them exactly instead of staying below.
        return (size + 1) // 20 * 20 - 1
    return min(max(round(share * n), 1), n - 1)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of held-out normal rows, against which a new score becomes a p value; high scores are anomalous.

    The p value of a normal row is valid whatever the score is: it falls at or below alpha with probability at
    most alpha, as long as the row and the calibration rows are exchangeable. A score that rounding alone may
    have put above a calibration score counts as equal to it, so that equal rows get the same verdict.

    Parameters
    ----------
    scores : ndarray (m,)
        In any order; kept sorted ascending and read-only.
    anomalies : Anomalies, optional
        What is known of anomalies, which the rule by costs needs.

    Attributes
    ----------
    ceilings : ndarray (m,)
        The highest score that counts as equal to each calibration score: a millionth of its size above it, or
        of the median size where that is larger.

    Raises
    ------
    ValueError
        Another number of axes, or NaN among the scores.

    Examples
    --------
    >>> normal = Calibration(np.arange(19.0))
    >>> normal.p_values([20.0, 9.5])
    array([0.05, 0.5 ])
    >>> normal.detect([20.0, 9.5], alpha=0.05)
    array([ True, False])
    """

    scores: NDArray[np.float64]
    anomalies: Anomalies | None = None
    ceilings: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = np.sort(check_scores(self.scores, "calibration scores"))
        for name, values in {"scores": ordered, "ceilings": _ceilings(ordered, ordered)}.items():
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Return the conformal p value of every score, (n,), low = anomalous, from 1 / (m + 1) to 1.

        It is ``(1 + number of calibration scores >= score) / (m + 1)``, up to rounding (`ceilings`).

        Parameters
        ----------
        scores : array (n,)
            High = anomalous.

        Raises
        ------
        ValueError
            NaN among the scores, or another number of axes.
        """
        given = check_scores(scores, "scores")
        below = np.searchsorted(self.ceilings, given, side="left")
        return (1 + len(self.scores) - below) / (len(self.scores) + 1)

    def equals(self, scores: ArrayLike) -> NDArray[np.int64]:
        """Return how many calibration scores count as equal to each score, (n,), up to rounding.

        Parameters
        ----------
        scores : array (n,)
        """
        given = check_scores(scores, "scores")
        above = len(self.scores) - np.searchsorted(self.scores, _ceilings(given, self.scores), side="right")
        return len(self.scores) - np.searchsorted(self.ceilings, given, side="left") - above

    def threshold(self, alpha: float) -> float:
        """Return the score above which `detect` at this alpha raises an alarm; infinity where no score can.

        Parameters
        ----------
        alpha : float
            False-alarm rate, between 0 and 1.

        Returns
        -------
        float
            ``detect(scores, alpha=alpha)`` equals ``scores > threshold(alpha)``.
        """
        _check_rate("alpha", alpha)
        m = len(self.scores)
        # The levels are divided here as in `p_values`, so that the two agree to the last bit.
        reached = int(np.searchsorted(np.arange(1, m + 2) / (m + 1), level(alpha), side="right"))
        if reached > m:  # of all p values, 1 among them
            return float("-inf")
        return float(self.ceilings[m - reached]) if reached else float("inf")

    def line(self, costs: Any) -> float:
        """Return the score above which `detect` by these costs raises an alarm.

        Parameters
        ----------
        costs : pair of float, or str such as "1:50"
            Of a false alarm and of a miss.

        Raises
        ------
        ValueError
            No anomalies are known.
        """
        given = pair(costs)
        if self.anomalies is None:
            raise ValueError(
                "costs need known anomalies, to tell what a line would miss: detector.calibrate(normal_rows, "
                "anomalies=odd_rows), or anograd calibrate MODEL DATA --label COLUMN"
            )
        return self.anomalies.threshold(self.ceilings, given)

    def detect(
        self,
        scores: ArrayLike,
        *,
        alpha: float | None = None,
        fdr: float | None = None,
        budget: int | None = None,
        costs: Any = None,
    ) -> NDArray[np.bool_]:
        """Return which rows raise an alarm, (n,) bool, True = anomalous.

        Parameters
        ----------
        scores : array (n,)
            High = anomalous.
        alpha : float, optional
            Share of normal rows that may raise an alarm, between 0 and 1. Without a rule: 0.05.
        fdr : float, optional
            Share of the alarms that may be false, between 0 and 1 (Benjamini-Hochberg over these n rows).
        budget : int, optional
            The highest scores, never more alarms than this; of equal scores the first rows go first. A score
            no higher than every other one, calibration included, raises no alarm.
        costs : pair of float or str, optional
            Of a false alarm and of a miss, ``(1, 50)`` or "1:50": the line that costs least on average, by
            these normal rows, the known anomalies, and their prevalence.

        Raises
        ------
        ValueError
            More than one of the four, one out of range, costs where no anomalies are known, or NaN among
            the scores.

        Warns
        -----
        UserWarning
            Too few calibration rows for the level or the costs asked for, so that no alarm is possible.
        """
        chosen = {"alpha": alpha, "fdr": fdr, "budget": budget, "costs": costs}
        given = [f"{name}={value!r}" for name, value in chosen.items() if value is not None]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} were given; one of alpha, fdr, budget and costs is wanted"
            )
        values = check_scores(scores, "scores")
        if budget is not None:
            return self._highest(values, budget)
        if costs is not None:
            line = self.line(costs)
            if line == np.inf:
                assert self.anomalies is not None
                warnings.warn(
                    f"costs={costs!r} raises no alarm: at a prevalence of {self.anomalies.prevalence:g} and "
                    f"by m = {len(self.scores)} calibration rows, false alarms would cost more than the "
                    f"misses that they avoid; {MORE_ROWS}, or check the prevalence",
                    stacklevel=2,
                )
            return values > line
        p = self.p_values(values)
        if fdr is not None:
            return self._discoveries(p, fdr)
        alpha = 0.05 if alpha is None else alpha
        _check_rate("alpha", alpha)
        m = len(self.scores)
        if 1 / (m + 1) > level(alpha):
            warnings.warn(
                f"alpha={alpha:g} raises no alarm: with m = {m} calibration rows the smallest p value is "
                f"{1 / (m + 1):.4g}; {MORE_ROWS}, or take a larger alpha",
                stacklevel=2,
            )
        return np.asarray(p <= level(alpha), dtype=bool)

    def within(self, scores: ArrayLike) -> bool:
        """Tell whether rows seem to hold those that p values refer to, going by the scores.

        Nine in ten of the calibration scores, and at least 20, stand among them, up to rounding. Rows of
        which many score alike, such as those of a few levels, tell nothing: new ones score alike, too.

        Parameters
        ----------
        scores : array (n,)

        Examples
        --------
        >>> normal = Calibration(np.random.default_rng(0).normal(size=99))
        >>> normal.within([*normal.scores, 5.0]), normal.within(normal.scores + 0.01)
        (True, False)
        """
        own = np.unique(self.scores[np.isfinite(self.scores)])
        given = np.sort(check_scores(scores, "scores"))
        given = given[np.isfinite(given)]
        if len(own) < FEWEST or len(given) < len(own):
            return False
        for rounding in (1e-3 * ROUNDING, ROUNDING):  # single precision is coarse where there are many rows
            apart = np.diff(given) > 4 * rounding * np.abs(given[1:])
            places = np.searchsorted(given, own)
            above = given[np.minimum(places, len(given) - 1)]
            below = given[np.maximum(places - 1, 0)]
            there = np.minimum(np.abs(above - own), np.abs(own - below)) <= rounding * np.abs(own)
            if apart.mean() >= MOST and there.mean() >= MOST:
                return True
        return False

    def check_new(self, scores: NDArray[np.float64], fitted: int) -> None:
        """Warn where rows to calibrate with may be those of the fit: as many, and p values' own among them.

        Parameters
        ----------
        scores : ndarray (n,)
        fitted : int
            Normal rows that the fit was given, these held-out ones among them.
        """
        if len(scores) >= max(fitted, len(self.scores) + 1) and self.within(scores):
            warnings.warn(
                "these rows hold those that p values referred to before: if the model was fitted to them, "
                "too, it knows them, they score lower than new normal rows will, and more than alpha of "
                "those will raise an alarm; calibrate with rows that the model has not seen",
                stacklevel=3,
            )

    def _discoveries(self, p: NDArray[np.float64], fdr: float) -> NDArray[np.bool_]:
        _check_rate("fdr", fdr)
        if not len(p):
            return np.zeros(0, dtype=bool)
        alarms = np.asarray(false_discovery_control(p, method="bh") <= level(fdr), dtype=bool)
        m, n = len(self.scores), len(p)
        if not alarms.any() and n / (m + 1) > fdr:
            # j rows at the smallest p value have the adjusted p value n / (j * (m + 1)).
            least = np.ceil(n / (m + 1) / fdr - 1e-9)
            possible = (
                f"at least {least:.0f} of the {n} rows above all of them" if least <= n else "more of them"
            )
            warnings.warn(
                f"fdr={fdr:g} raises no alarm: with m = {m} calibration rows it needs {possible} (smallest "
                f"p value {1 / (m + 1):.4g}); {MORE_ROWS}, or take a larger fdr or alpha=",
                stacklevel=3,
            )
        return alarms

    def _highest(self, values: NDArray[np.float64], budget: int) -> NDArray[np.bool_]:
        if not isinstance(budget, Integral) or isinstance(budget, bool) or budget < 0:
            raise ValueError(f"budget={budget!r} was given; a number of rows is wanted, an int of 0 or more")
        alarms = np.zeros(len(values), dtype=bool)
        if len(values):
            lowest = np.array([min([values.min(), *self.scores[:1]])])
            (floor,) = _ceilings(lowest, self.scores)
            first = np.argsort(-values, kind="stable")[:budget]
            alarms[first] = values[first] > floor
        return alarms


def level(rate: Any) -> Any:
    """Return what a p value may be at most: the rate, with room for rounding, as 1 - 0.9 is not quite 0.1."""
    return (float(rate) if isinstance(rate, np.floating) else rate) * (1 + 1e-9)


def _ceilings(scores: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    # Infinite scores, the lowest among them, stay as they are.
    sizes, finite = np.abs(scores), np.abs(normal[np.isfinite(normal)])
    usual = np.median(finite) if len(finite) else 0.0
    return scores + ROUNDING * np.where(np.isfinite(sizes), np.maximum(sizes, usual), 0.0)


def check_scores(scores: Any, what: str) -> NDArray[np.float64]:
    """Return scores as an array, (n,) float64; raise ValueError for another shape, or for NaN among them."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what} of shape {array.shape} were given; one number a row is wanted, shape (n,)")
    if np.isnan(array).any():
        row = int(np.isnan(array).argmax())
        raise ValueError(
            f"{what} hold NaN at row {row}; numbers are wanted: look at that row of X, its values may be far "
            "outside the training data or training has diverged (lower the learning rate)"
        )
    return array


def _check_rate(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < 1:
        raise ValueError(f"{name}={value!r} was given; a rate between 0 and 1 is wanted: {name}=0.05")


def asked(rule: Mapping[str, Any]) -> str:
    """Return a rule in words.

    Parameters
    ----------
    rule : mapping
        What `Calibration.detect` takes.

    Examples
    --------
    >>> asked({"alpha": 0.05}), asked({"costs": (1.0, 50.0)})
    ('alpha 0.05', 'costs 1:50')
    """
    return ", ".join(
        f"{name} {':'.join(f'{one:g}' for one in pair(value)) if name == 'costs' else value}"
        for name, value in rule.items()
    )


def counted(n: int, noun: str) -> str:
    """Return how many there are of something, in words.

    Parameters
    ----------
    n : int
    noun : str
        What one of them is called.

    Examples
    --------
    >>> counted(1, "row"), counted(2_000, "row"), counted(0, "anomaly")
    ('1 row', '2,000 rows', '0 anomalies')
    """
    many = noun.removesuffix("y") + "ies" if noun.endswith("y") else noun + "s"
    return f"{n:,} {noun if n == 1 else many}"
