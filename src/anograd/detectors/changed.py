"""Columns in which the rows of a table are unlike those that a detector was fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from anograd.data import number_of_rows
from anograd.decoded import Tally, Unlike
from anograd.detectors.base import Detector


def tally_of(detector: Detector) -> Tally | None:
    """Return what counts rows that are unlike those of the fit, or None where the model is of no table.

    Parameters
    ----------
    detector : Detector
        Fitted.
    """
    table = detector.encoder_.table
    return None if table is None else Tally(table)


def unlike(detector: Detector, X: Any, *, normal: NDArray[np.bool_] | None = None) -> list[Unlike]:
    """Return the columns in which many rows hold what no row held that was learned from, most rows first.

    A level that was not among them, or a number outside their range, in a tenth of the rows and in five at
    least; normal rows that the fit held out for p values are none of them.
    Alarms may come of that alone, where a table has changed: another unit, a category spelt otherwise.

    Parameters
    ----------
    detector : Detector
        Fitted to a table; for others there is no such column.
    X : as for ``fit``
    normal : ndarray of bool, (n,), optional
        Which rows to look at; all of them left out.

    Raises
    ------
    ValueError
        `normal` is not one boolean a row.

    Examples
    --------
    >>> from anograd import GradCon
    >>> metres = np.random.default_rng(0).normal(180, 10, size=(200, 2))
    >>> detector = GradCon(epochs=2, random_state=0).fit(metres)
    >>> [(one.column, one.share) for one in unlike(detector, metres / [1, 100])]
    [('1', 1.0)]
    """
    check_is_fitted(detector)
    tally, first = tally_of(detector), 0
    if tally is None:
        return []
    n = number_of_rows(X)
    normal = None if normal is None else np.asarray(normal)
    if normal is not None and (normal.dtype != bool or normal.shape != (n,)):
        raise ValueError(
            f"normal is of type {normal.dtype} and shape {normal.shape}; one boolean a row is wanted, shape "
            f"({n},): normal=y == 0"
        )
    for piece in detector._encode(X):
        rows, end = piece.numpy(), first + len(piece)
        tally.add(rows if normal is None else rows[normal[first:end]])
        first = end
    return tally.many()
