"""Columns of numbers and of categories, out of an array, a frame, or a lazy frame that is read in pieces."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from anograd.commas import number
from anograd.data import frame_library, frame_names, to_array
from anograd.lazy import check_order, collect, is_lazy, slices
from anograd.levels import FEW, Texts, text_of

# Beginnings of the type names of polars and Arrow, and of what pandas' infer_dtype says.
NUMBERS = (
    *("integer", "int8", "int16", "int32", "int64", "int128", "uint", "float", "double", "halffloat"),
    *("decimal", "mixed-integer-float", "null", "empty"),
)
CATEGORIES = ("string", "utf8", "large_str", "bool", "categorical", "enum", "dictionary", "mixed-integer")
MOST_NAMED = 20  # columns that an error lists
TIMES = ("date", "time", "duration", "period", "month")
INDEX = re.compile(r"__index_level_\d+__|Unnamed: 0|")  # what frames call their index, and nothing


@dataclass(frozen=True)
class Part:
    """Some columns of some rows.

    Parameters
    ----------
    names : list of str or None
        Of all columns of the table; None for an array.
    columns : range
        Numbers of the columns that are here.
    start : int
        Number of the first row that is here.
    matrix : ndarray (rows, columns)
        The numbers, NaN for a missing cell of any kind, 0 for a category.
    texts : dict of int to list
        The categories by column number, None for a missing cell.
    """

    names: list[str] | None
    columns: range
    start: int
    matrix: NDArray[np.float64]
    texts: Texts


def parts(X: Any) -> Iterator[Part]:
    """Return the parts of a table: the whole of it, or of a lazy frame as little as can be held.

    A column of numbers comes whole, because it may be asked for its median; categories, which take
    far more room, come some thousand rows at a time.
    """
    if not is_lazy(X):
        names, matrix, texts = parse(X)
        yield Part(names, range(matrix.shape[1]), 0, matrix, texts)
        return
    check_order(X)
    names, _, texts = parse(collect(X.head(1)))  # one row shows every column of a wrong type
    assert names is not None
    for j, name in enumerate(names):
        column = X.select(name)
        if j not in texts:
            yield Part(names, range(j, j + 1), 0, parse(collect(column))[1], {})
            continue
        for start, frame in slices(column):
            _, matrix, found = parse(frame)
            yield Part(names, range(j, j + 1), start, matrix, {j: found[0]})


def parse(X: Any) -> tuple[list[str] | None, NDArray[np.float64], Texts]:
    """Return the column names, numbers (n, p) with NaN for a missing cell of any kind, and categories."""
    array = to_array(X)
    library = frame_library(array)
    if library is not None:
        return _parse_frame(array, library)
    try:
        checked = check_array(array, dtype="numeric", ensure_all_finite=False)
    except ValueError as error:
        if np.asarray(array).dtype.kind in "OUST" and "string" in str(error):
            raise ValueError(
                "X is an array that holds text; arrays are of numbers, and a table with categories is given "
                "as a frame: X = pandas.DataFrame(X)"
            ) from error
        raise
    if checked.dtype.kind in "mM":  # of which a missing one is a number of its own, far below all others
        raise ValueError(
            f"X holds dates or times ({checked.dtype}), numbers are wanted: convert them, such as to hours, "
            "pandas.Series(X[:, 0]).dt.hour"
        )
    return None, np.asarray(checked, dtype=np.float64), {}


def ranges(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the minimum, the maximum and the median of each column, (3, p).

    Parameters
    ----------
    rows : ndarray (n, p)
        Written over.
    """
    rows[:, np.isnan(rows).all(axis=0)] = 0.0
    # By hand, because MinMaxScaler takes any range below 2e-15 for a constant and loses digits far from zero.
    low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
    rows /= 2  # the sum of two large numbers can overflow
    return np.stack([low, high, 2 * np.nanmedian(rows, axis=0, overwrite_input=True)])


def _parse_frame(X: Any, library: str) -> tuple[list[str] | None, NDArray[np.float64], Texts]:
    if 0 in X.shape:
        axis = "sample" if X.shape[0] == 0 else "feature"
        raise ValueError(f"Found array with 0 {axis}(s) (shape={X.shape}) while a minimum of 1 is required.")
    labels = [str(name) for name in (X.column_names if library == "pyarrow" else X.columns)]
    doubled = [name for name, count in Counter(labels).items() if count > 1]
    if doubled:
        raise ValueError(
            f"X has more than one column named {doubled[0]!r}; names are wanted once: rename one of them"
        )
    matrix = np.zeros(X.shape, dtype=np.float64)
    texts: Texts = {}
    for j, label in enumerate(labels):
        column = X.iloc[:, j] if library == "pandas" else X[label]
        kind = _kind(column, library)
        if kind.startswith(NUMBERS):
            matrix[:, j] = _numbers(column, library)
        elif kind.startswith(CATEGORIES):
            texts[j] = _texts(column, library)
            matrix[:, j] = [np.nan if text is None else 0.0 for text in texts[j]]
        else:
            raise ValueError(_unusable(label, kind, library))
    # Numbered columns, as in a frame made from an array, are no names: scikit-learn reads them so, too.
    return frame_names(X), matrix, texts


def _kind(column: Any, library: str) -> str:
    if library == "pandas":
        from pandas.api.types import infer_dtype

        kind = str(infer_dtype(column, skipna=True))
        # pandas knows no dictionary of Arrow's by its values.
        return str(column.dtype).lower() if kind == "unknown-array" else kind
    return str(column.dtype if library == "polars" else column.type).lower()


def _numbers(column: Any, library: str) -> Any:
    if library == "pandas":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if library == "polars":
        import polars

        column = column.cast(polars.Float64)  # NumPy has no integers of 128 bits, which long ones become
    return column.to_numpy().astype(np.float64, copy=False)  # an empty cell is NaN in both libraries


def _texts(column: Any, library: str) -> list[str | None]:
    if library == "pandas":
        return [
            None if no else text_of(value) for value, no in zip(column.tolist(), column.isna(), strict=True)
        ]
    cells = column.to_list() if library == "polars" else column.to_pylist()
    return [None if value is None else text_of(value) for value in cells]


def _unusable(label: str, kind: str, library: str) -> str:
    if kind.startswith(TIMES):
        return (
            f"column {label!r} holds dates or times ({kind}); numbers, categories or booleans are wanted. "
            f"Convert it to what matters of it, such as the hour, the day of the week or a number of days, "
            f"or drop it"
        )
    ways = {
        "pandas": f"Convert it: X[{label!r}] = X[{label!r}].astype(str), or drop it",
        "polars": f"Drop it, X = X.drop({label!r}), or unnest or explode it into columns of its own",
        "pyarrow": f"Drop it, X = X.drop_columns({label!r}), or flatten it into columns of its own",
    }
    return f"column {label!r} is of type {kind}; numbers, categories or booleans are wanted. {ways[library]}"


def warn_of_row_numbers(part: Part) -> None:
    """Warn of a named column that numbers the rows: whole numbers, one after the other, in any order.

    Or one of a name that pandas gives to its index, or a reader to a column without a name.
    """
    count = len(part.matrix)
    if part.names is None:
        return
    for name in (part.names[j] for j in part.columns):
        if INDEX.fullmatch(name):
            warnings.warn(
                f"column {name!r} is called like the index of a frame, which says nothing of a row; leave it "
                f"out: X = X.drop(columns=[{name!r}]) or --drop {quote(name)}",
                UserWarning,
                stacklevel=6,
            )
    if count <= FEW:
        return
    for j in part.columns:
        column, name = part.matrix[:, j - part.columns.start], part.names[j]
        low, high = column.min(), column.max()
        if j in part.texts or INDEX.fullmatch(name) or high != low + (count - 1) or low != np.floor(low):
            continue
        if (np.sort(column) == low + np.arange(count)).all():
            warnings.warn(
                f"column {name!r} numbers the rows, {low:.0f} to {high:.0f}: rows to come lie beyond, and "
                f"may be called anomalous for that alone. Leave it out: "
                f"X = X.drop(columns=[{name!r}]) or --drop {quote(name)}",
                UserWarning,
                stacklevel=6,
            )


def check_names(names: list[str], fitted: list[str] | None) -> None:
    """Raise ValueError where the columns of a table are not called as in the fit, in that order.

    Parameters
    ----------
    names : list of str
    fitted : list of str or None
        None where the fit saw numbered columns, or an array.
    """
    if fitted is None:
        numbered = list(map(str, range(len(names))))
        if names != numbered and all(map(str.isdecimal, names)) and not set(names).isdisjoint(numbered):
            raise ValueError(
                f"the columns are numbered {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}, but "
                f"those of the fit were 0 to {len(names) - 1}: give them in that order, and where they are "
                "in it, without their names: X.to_numpy()"
            )
        return
    if names == fitted:
        return
    # The first lines are scikit-learn's words, which its contract asks for.
    text = "The feature names should match those that were passed during fit.\n"
    unseen, gone = sorted(set(names) - set(fitted)), sorted(set(fitted) - set(names))
    text += _listed("Feature names unseen at fit time:\n", unseen)
    text += _listed("Feature names seen at fit time, yet now missing:\n", gone)
    if not unseen and not gone:
        text += "Feature names must be in the same order as they were in fit.\n"
    wanted = repr(fitted) if len(fitted) <= MOST_NAMED else "list(detector.feature_names_in_)"
    other = any(name.startswith("(") or number(name) is not None for name in fitted)
    as_text = "X.columns = X.columns.map(str); " if other else ""  # so that names that were none are found
    raise ValueError(text + f"Give the columns of the fit: {as_text}X = X[{wanted}]")


def _listed(head: str, names: list[str]) -> str:
    shown = "".join(f"- {name}\n" for name in names[:5]) + ("- ...\n" if len(names) > 5 else "")
    return head + shown if names else ""
