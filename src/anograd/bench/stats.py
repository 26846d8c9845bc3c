"""Statistics of a comparison: intervals over seeds, ranks over data sets, tests, runs that do not differ.

A table here is a mapping detector -> data set -> value, high = better. Ranks and tests look at complete
blocks alone: a data set on which one of the detectors has no value is left out, and `blocks` says which.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.stats import chi2, rankdata, studentized_range, t

Table = Mapping[str, Mapping[str, float]]
LEVEL = 0.95
FEWEST = 3  # seeds that an interval is given for
DECIMALS = 12  # differences below are rounding, not difference


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes
    ----------
    value : float
    half : float or None
        Half the width of its 95 % interval by Student's t; None for fewer than three seeds, since of two it
        would be 13 standard errors.
    count : int
        Seeds.
    ends : tuple of float or None
        Lowest and highest, of two seeds.
    """

    value: float
    half: float | None
    count: int
    ends: tuple[float, float] | None = None


def mean(values: Sequence[float]) -> Mean:
    """Return the mean of one value a seed, with its 95 % interval, or of two seeds with both ends.

    Parameters
    ----------
    values : sequence of float
        At least one, all finite.

    Raises
    ------
    ValueError
        No value, or one that is not finite.

    Examples
    --------
    >>> mean([0.8, 0.9, 1.0])
    Mean(value=0.9, half=0.248..., count=3, ends=None)
    >>> mean([0.8])
    Mean(value=0.8, half=None, count=1, ends=None)
    """
    count = len(values)
    if not count or not all(math.isfinite(value) for value in values):
        raise ValueError(f"a mean wants finite values, at least one; got {list(values)}")
    middle = math.fsum(values) / count
    if count < FEWEST:
        return Mean(middle, None, count, (min(values), max(values)) if count > 1 else None)
    deviation = math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (count - 1))
    half = float(t.ppf((1 + LEVEL) / 2, count - 1)) * deviation / math.sqrt(count)
    return Mean(middle, half, count)


def pooled(values: Mapping[str, Mapping[int, float]]) -> Mean:
    """Return the mean over units of the means over seeds; its interval is over the seeds that all units have.

    Parameters
    ----------
    values : mapping of unit to mapping of seed to float
        A unit is a data set, or a class of one.

    Examples
    --------
    >>> pooled({"a": {0: 0.5, 1: 0.7, 2: 0.6}, "b": {0: 0.9, 1: 0.9, 2: 0.9}})
    Mean(value=0.75, half=0.124..., count=3, ends=None)
    """
    middle = mean([mean(list(seeds.values())).value for seeds in values.values()])
    shared = set.intersection(*(set(seeds) for seeds in values.values()))
    if len(shared) < 2:
        return Mean(middle.value, None, len(shared))
    by_seed = [mean([seeds[seed] for seeds in values.values()]).value for seed in shared]
    return replace(mean(sorted(by_seed)), value=middle.value)


def blocks(table: Table) -> tuple[list[str], list[str]]:
    """Return the data sets on which every detector has a value, and those that are left out.

    Parameters
    ----------
    table : mapping of detector to mapping of data set to float

    Examples
    --------
    >>> blocks({"a": {"x": 0.5, "y": 0.6}, "b": {"x": 0.7}})
    (['x'], ['y'])
    """
    every = list(dict.fromkeys(itertools.chain.from_iterable(table.values())))
    whole = [data for data in every if all(data in values for values in table.values())]
    return whole, [data for data in every if data not in whole]


def _matrix(table: Table) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return values (data sets, detectors) of the complete blocks, without what is rounding."""
    whole, _ = blocks(table)
    values = [[values[data] for values in table.values()] for data in whole]
    return np.round(np.array(values, dtype=np.float64).reshape(len(whole), len(table)), DECIMALS)


def ranks(table: Table) -> dict[str, float]:
    """Return each detector's rank, averaged over the complete blocks: 1 = best, ties share their ranks.

    Parameters
    ----------
    table : mapping of detector to mapping of data set to float

    Returns
    -------
    dict of str to float
        Empty where there is no complete block.

    Examples
    --------
    >>> ranks({"a": {"x": 0.5, "y": 0.6}, "b": {"x": 0.7, "y": 0.6}})
    {'a': 1.75, 'b': 1.25}
    """
    matrix = _matrix(table)
    if not len(matrix):
        return {}
    places = rankdata(-matrix, axis=1).mean(axis=0)
    return dict(zip(table, places.tolist(), strict=True))


def friedman(table: Table) -> float:
    """Return the p value of Friedman's test, with its correction for ties, that no detectors differ.

    Parameters
    ----------
    table : mapping of detector to mapping of data set to float

    Examples
    --------
    >>> sets = {"a": [3, 3, 3, 2], "b": [2, 2, 2, 3], "c": [1, 1, 1, 1]}
    >>> f"{friedman({name: dict(enumerate(row)) for name, row in sets.items()}):.4f}"
    '0.0388'
    """
    matrix = _matrix(table)
    n, k = matrix.shape
    if n < 2 or k < 2:
        return 1.0
    placed = rankdata(matrix, axis=1)
    squares = float((placed**2).sum())  # less than n k (k + 1) (2 k + 1) / 6 where ranks are shared
    middle = n * k * (k + 1) ** 2 / 4
    if squares - middle < 1e-9:
        return 1.0
    between = float((placed.sum(axis=0) ** 2).sum()) - n * middle
    return float(chi2.sf((k - 1) * between / (squares - middle), k - 1))


def signed_rank(differences: Sequence[float]) -> float:
    """Return the exact two-sided p value of Wilcoxon's signed-rank test.

    Differences of nought are left out, equal ones share their ranks, and the p value is over all signs that
    these very ranks could have had. Without any difference it is 1.

    Parameters
    ----------
    differences : sequence of float

    Examples
    --------
    >>> signed_rank([0.1, 0.2, 0.3, 0.4, 0.5])
    0.0625
    >>> signed_rank([0.0, 0.0])
    1.0
    """
    values = np.round(np.asarray(differences, dtype=np.float64), DECIMALS)
    values = values[values != 0]
    doubled = np.rint(2 * rankdata(np.abs(values))).astype(int)  # shared ranks are halves
    chances = np.zeros(int(doubled.sum()) + 1)
    chances[0] = 1.0
    for one in doubled:
        moved = np.zeros_like(chances)
        moved[one:] = chances[: len(chances) - one]
        chances = (chances + moved) / 2
    positive = int(doubled[values > 0].sum())
    tail = min(chances[: positive + 1].sum(), chances[positive:].sum())
    return min(1.0, float(2 * tail))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down rule, in the order given.

    Parameters
    ----------
    p_values : sequence of float

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = least
    return corrected


def _differences(table: Table, one: str, other: str, whole: Sequence[str]) -> list[float]:
    return [table[one][data] - table[other][data] for data in whole]


def wilcoxon_holm(table: Table, against: str) -> dict[str, float]:
    """Return how surely each other detector differs from one of them, as a corrected p value.

    Two-sided Wilcoxon signed-rank tests over the complete blocks, corrected by Holm for their number.

    Parameters
    ----------
    table : mapping of detector to mapping of data set to float
    against : str
        The detector that all others are compared with.

    Examples
    --------
    >>> sets = {"a": [0.9] * 6, "b": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    >>> wilcoxon_holm({name: dict(enumerate(row)) for name, row in sets.items()}, "a")
    {'b': 0.03125}
    """
    whole, _ = blocks(table)
    others = [name for name in table if name != against]
    p = [signed_rank(_differences(table, name, against, whole)) for name in others]
    return dict(zip(others, holm(p), strict=True))


@lru_cache
def critical_difference(k: int, n: int, alpha: float = 0.05) -> float:
    """Return by how much mean ranks must lie apart to differ by Nemenyi's test.

    Parameters
    ----------
    k : int
        Detectors, at least two.
    n : int
        Data sets.
    alpha : float
        Chance of a difference that is none.

    References
    ----------
    J. Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006), section 3.2.2.

    Examples
    --------
    >>> f"{critical_difference(5, 30):.3f}"
    '1.114'
    """
    if k < 2 or n < 1:
        raise ValueError(
            f"a critical difference wants 2 or more detectors on 1 or more data sets; got {k}, {n}"
        )
    q = float(studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    return q * math.sqrt(k * (k + 1) / (6 * n))


def cliques(table: Table, alpha: float = 0.05) -> list[tuple[str, ...]]:
    """Return the longest runs of neighbours in rank among which no two detectors differ, best rank first.

    Whether two differ is for Wilcoxon's signed-rank test to say, corrected by Holm over all pairs: unlike
    Nemenyi's difference of ranks, it does not depend on which other detectors take part. A run holds
    neighbours alone, so that no detector stands inside a run whose others it differs from.

    Parameters
    ----------
    table : mapping of detector to mapping of data set to float
    alpha : float

    References
    ----------
    A. Benavoli, G. Corani, F. Mangili, Should we really use post-hoc tests based on mean-ranks?, JMLR 17
    (2016).

    Examples
    --------
    >>> sets = {"a": [0.91, 0.92, 0.93, 0.94], "b": [0.1, 0.2, 0.3, 0.4]}
    >>> cliques({name: dict(enumerate(row)) for name, row in sets.items()})  # four sets tell nothing apart
    [('a', 'b')]
    """
    whole, _ = blocks(table)
    placed = ranks(table)
    order = sorted(placed, key=lambda name: placed[name])
    pairs = list(itertools.combinations(order, 2))
    p = holm([signed_rank(_differences(table, one, other, whole)) for one, other in pairs])
    apart = {pair for pair, value in zip(pairs, p, strict=True) if value < alpha}
    found: list[tuple[str, ...]] = []
    reached = 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and not any((one, order[end]) in apart for one in order[start:end]):
            end += 1
        if end - start > 1 and end > reached:
            found.append(tuple(order[start:end]))
        reached = max(reached, end)
    return found
