"""Encoded rows read back: what their cells mean, and which columns are unlike those of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anograd.table import Table

MANY = 0.1  # of the rows: beyond the range of fifty rows lie about 4 % of the next ones
FEW = 5
TOLD = 5  # columns
Rows = NDArray[np.float32]


def decode(table: Table, encoded: Rows) -> NDArray[np.object_]:
    """Return what encoded rows mean, (n, p): numbers in their own unit, the names of levels.

    Parameters
    ----------
    table : Table
        Fitted.
    encoded : ndarray, (n, number of `names_out`)
        Of a category the level with the largest entry counts.
    """
    found = np.empty((len(encoded), table.n_in), dtype=object)
    numbers, (low, half, _) = _numbers(table), table.ranges()
    scaled = encoded[:, np.isin(table.origin, numbers)].astype(np.float64)
    found[:, numbers] = 2 * (scaled * half + low / 2)
    for j, columns in _levels(table).items():
        names = [_level(table, j, i) for i in columns]
        found[:, j] = [names[i] for i in encoded[:, columns].argmax(1)]
    return found


def settle(table: Table, encoded: Rows) -> Rows:
    """Return encoded rows in which each category has one level: the likeliest of what was given.

    Parameters
    ----------
    table : Table
        Fitted.
    encoded : ndarray, (n, number of `names_out`)
    """
    found = encoded.copy()
    for columns in _levels(table).values():
        likeliest = columns[encoded[:, columns].argmax(1)]
        found[:, columns] = 0
        found[np.arange(len(found)), likeliest] = 1
    return found


@dataclass(frozen=True)
class Unlike:
    """A column in which many rows hold what no row held that was learned from.

    Attributes
    ----------
    column : str
    rows : int
        How many rows.
    share : float
        Of all rows.
    why : str
        What they hold, such as "a number outside 0 to 320".
    """

    column: str
    rows: int
    share: float
    why: str


class Tally:
    """Counts, column by column, the rows that hold what no row held that was learned from.

    Parameters
    ----------
    table : Table
        Fitted.

    Attributes
    ----------
    counts : ndarray of int64, (1 + columns,)
        How many rows there were, and how many are so in each column.

    Examples
    --------
    >>> table = Table().fit([[0.0, 5.0], [10.0, 5.0]])
    >>> tally = Tally(table)
    >>> tally.add(table.transform([[5.0, 6.0]] * 20))
    >>> tally.many()
    [Unlike(column='1', rows=20, share=1.0, why='a number other than 5')]
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self.counts = np.zeros(1 + table.n_in, dtype=np.int64)
        self._numbers = _numbers(table)
        self._at = np.flatnonzero(np.isin(table.origin, self._numbers))
        self._high = np.where(np.isin(self._numbers, table.constant), 0, 1).astype(np.float32)
        self._unseen = {j: int(at[-1]) for j, at in _levels(table).items() if j not in table.gaps}

    def add(self, encoded: Rows) -> None:
        """Count some rows more.

        Parameters
        ----------
        encoded : ndarray, (n, number of `names_out`)
        """
        self.counts[0] += len(encoded)
        columns = self.counts[1:]
        values = encoded[:, self._at]
        columns[self._numbers] += ((values < 0) | (values > self._high)).sum(0)
        for j, column in self._unseen.items():
            columns[j] += np.count_nonzero(encoded[:, column])

    def many(self) -> list[Unlike]:
        """Return the columns in which a tenth of the rows, and five at least, are so; most rows first."""
        rows, *columns = self.counts.tolist()
        least = max(FEW, MANY * rows)
        found = [
            Unlike(self._table.label(j), count, count / rows, self._why(j))
            for j, count in enumerate(columns)
            if count >= least
        ]
        return sorted(found, key=lambda one: -one.rows)

    def _why(self, j: int) -> str:
        if j in self._unseen:
            return "a level that the model has not seen, or none"
        low, half, _ = self._table.ranges()
        i = self._numbers.index(j)
        if j in self._table.constant:
            return f"a number other than {low[i]:.6g}"
        return f"a number outside {low[i]:.6g} to {2 * (low[i] / 2 + half[i]):.6g}"


def in_words(found: Sequence[Unlike]) -> str:
    """Return in words which columns are unlike those of the fit, and what may follow.

    Parameters
    ----------
    found : sequence of Unlike
        From `Tally.many`, at least one.
    """
    each = [f"{one.column!r} holds {one.why}, in {one.share:.0%} of the rows" for one in found[:TOLD]]
    rest = f", and so on in {len(found) - TOLD} more columns" if len(found) > TOLD else ""
    return (
        "the rows are unlike those that the model was fitted to, and alarms may come of that alone: "
        f"{'; '.join(each)}{rest}. Where this is normal now, fit anew"
    )


def _numbers(table: Table) -> list[int]:
    return [j for j, kind in enumerate(table.kinds()) if kind == "number"]


def _levels(table: Table) -> dict[int, NDArray[np.int64]]:
    """Return the encoded columns of each category, in order; the last is for what was not seen."""
    origin = np.array(table.origin)
    return {j: np.flatnonzero(origin == j) for j in table.levels()}


def _level(table: Table, j: int, column: int) -> str:
    name, label = table.names_out[column], table.label(j)
    return name.removeprefix(f"{label}=") if name.startswith(f"{label}=") else name.removeprefix(f"{label} ")
