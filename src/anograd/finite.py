"""Is every number finite? Where not, the first cell that is not is named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Flaw:
    """The first cell that is not a finite number.

    Parameters
    ----------
    row : int
    place : tuple of int
        Its column, or its channel and pixel.
    kind : {"NaN", "infinity"}
    count : int
        How many such cells there are.
    """

    row: int
    place: tuple[int, ...]
    kind: str
    count: int

    @classmethod
    def find(cls, array: NDArray[Any]) -> Self | None:
        """Return the flaw of an array (n, ...), or None where all is finite."""
        if array.dtype.kind not in "fc":
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(array.sum()):  # one pass without a mask: the common case costs no memory
                return None
        bad = ~np.isfinite(array)
        if not bad.any():  # the sum overflowed, the numbers are fine
            return None
        row, *place = (int(i) for i in np.unravel_index(int(bad.argmax()), array.shape))
        kind = "NaN" if np.isnan(array[(row, *place)]) else "infinity"
        return cls(row, tuple(place), kind, int(bad.sum()))


def refuse(
    flaws: Sequence[Flaw], columns: Sequence[str] | None = None, among: str = "in all", raw: bool = False
) -> None:
    """Return nothing where there is no flaw; else raise an error that names the first one.

    Parameters
    ----------
    flaws : sequence of Flaw
        Of parts of the rows, each numbered from the start of the whole.
    columns : sequence of str, optional
        Column names of a table, for the message.
    among : str
        What their count refers to.
    raw : bool
        Whether the rows are handed over as they are, and nothing can fill them.

    Raises
    ------
    ValueError
        Says row and column (or channel and pixel), the count of such cells, and the remedy.
    """
    if not flaws:
        return
    first, count = min(flaws, key=lambda flaw: (flaw.row, flaw.place)), sum(flaw.count for flaw in flaws)
    where, fill = f"row {first.row}", ""
    if len(first.place) == 1:
        column = first.place[0]
        where += f", column {column}" + (f" ({columns[column]!r})" if columns is not None else "")
        fill = ", or fill them" + (": missing='impute' replaces NaN, never infinity" if not raw else "")
    elif first.place:
        where += f", channel {first.place[0]}, pixel {first.place[1:]}"
    raise ValueError(
        f"X holds {first.kind} at {where}, counted from 0 ({count} such cells {among}); finite "
        f"numbers are wanted: drop the rows that hold them{fill}"
    )


def check_finite(array: NDArray[Any], raw: bool = False) -> None:
    """Return nothing when every number is finite; else raise an error that names the first cell that is not.

    Parameters
    ----------
    array : ndarray (n, ...)
        A table or images; integers and booleans pass at once.
    raw : bool
        As for `refuse`.

    Raises
    ------
    ValueError
        Says row and column (or channel and pixel), the count of such cells, and the remedy.
    """
    flaw = Flaw.find(array)
    refuse([flaw] if flaw is not None else [], raw=raw)
