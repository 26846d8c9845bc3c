"""Rows and labels out of files: which column is the label, and which of its values are normal."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anograd.data import Array, is_frame, labels, number_of_rows, read, rows_at, scan
from anograd.lazy import collect, is_lazy

SHOWN = 20
NO_LABELS = ("List", "Array", "Struct", "Binary")  # types of polars
MOST_COUNTED = 1000  # values, where somebody took a column of numbers for labels


def read_labelled(
    data: str, label: str | None, normal: Sequence[str], drop: Sequence[str] = (), texts: Sequence[str] = (),
    *, absent: bool = False,
) -> tuple[Any, Array | None]:  # fmt: skip
    """Return the rows in a file without their label column, and y for `fit`: 1 marks a known anomaly.

    Parameters
    ----------
    data : str
        What `anograd.data.scan` takes; Parquet is read in pieces.
    label : str or None
        A column of the table in `data`, or a file of labels: ``y.npy``, ``y.npz:key``. None: no labels.
    normal : sequence of str
        The normal labels as somebody typed them; all others are known anomalies. When empty, the labels
        must be 0 and 1, or +1 and -1, and are handed on as they are.
    drop : sequence of str
        Columns to leave out, such as a row's number.
    texts : sequence of str
        Columns that are read as text, as `anograd.data.scan` takes them.
    absent : bool, default False
        Whether a normal label may not occur; a warning says that it does not.

    Raises
    ------
    ValueError
        No such column, another number of labels than rows, a row without one, other labels than 0 and 1 or
        +1 and -1, or a normal one that does not occur; the message lists what there is.
    """
    X = _without(scan(data, texts), data, drop, "--drop")
    return (X, None) if label is None else _marked(X, data, label, normal, absent)


def _marked(X: Any, data: str, label: str, normal: Sequence[str], absent: bool = False) -> tuple[Any, Array]:
    """Return the rows without their label column, and which are known anomalies, as `read_labelled` does."""
    X, values = _split(X, data, label)
    kind = str(values.dtype)
    if kind.startswith(NO_LABELS):
        raise ValueError(
            f"{label!r} is of type {kind}; one number or word a row is wanted: give another label"
        )
    there = values.unique().to_list() if hasattr(values, "unique") else np.unique(values).tolist()
    if any(map(_is_missing, there)):
        row = next(row for row, value in enumerate(values) if _is_missing(value))
        raise ValueError(
            f"{label!r} has no label in row {row}, counted from 0; one a row is wanted: drop the row, or "
            "give it the normal label"
        )
    there.sort(key=lambda value: (type(value).__name__, value))
    if not normal:
        if not (set(there) <= {0, 1} or set(there) <= {-1, 1}):
            most = there[
                int(np.argmax([np.sum(np.asarray(values == value)) for value in there[:MOST_COUNTED]]))
            ]
            raise ValueError(
                f"{label!r} holds {_listed(there)}; where labels are not 0 and 1 (1 is a known anomaly) or "
                f"+1 and -1 (-1 is one), say which are normal: --normal VALUE, such as --normal {most}, "
                "which most rows have"
            )
        return X, np.asarray(values)
    for text in normal:
        if not any(_means(value, text) for value in there):
            told = f"--normal {text} does not occur in {label!r}, which holds {_listed(there)}"
            if not absent:
                raise ValueError(f"{told}; give one of them")
            warnings.warn(f"{told}: these are taken for known anomalies", stacklevel=3)
    odd = {value for value in there if not any(_means(value, text) for text in normal)}
    return X, np.fromiter((value in odd for value in values), dtype=np.int8, count=len(values))


def read_features(
    data: str,
    label: str | None,
    fitted: Sequence[str] | None,
    texts: Sequence[str] = (),
    pictures: Sequence[str] | None = None,
) -> Any:
    """Return the rows in a file to be scored, without their label column.

    Parameters
    ----------
    data : str
        What `anograd.data.scan` takes; Parquet is read in pieces.
    label : str or None
        A column to leave out of a table.
    fitted : sequence of str or None
        The columns that the detector was fitted on, where it knows their names.
    texts, pictures : sequence of str
        Columns that are read as text, and paths in a folder, as `anograd.data.scan` takes them.

    Raises
    ------
    ValueError
        No such column, or those of the fit in another order.

    Warns
    -----
    UserWarning
        For columns that the detector does not know, which are left out.
    """
    X = scan(data, texts, pictures)
    there = _columns(X)
    if there is None:
        return _without(X, data, [label] if label is not None else [], "--label")
    return X.drop(left_out(there, data, label, fitted))


def left_out(there: Sequence[str], data: str, label: str | None, fitted: Sequence[str] | None) -> list[str]:
    """Return which columns of a table are not to be scored: its label, and what the detector does not know.

    Parameters
    ----------
    there : sequence of str
        All columns.
    data : str
        What the warning calls the table.
    label : str or None
    fitted : sequence of str or None
        As for `read_features`, which raises and warns alike.
    """
    labels = [label] if label is not None else []
    _check_there(there, data, labels, "--label")
    rest = [name for name in there if name != label]
    return labels + _extra(rest, data, fitted)


def read_normal(
    data: str,
    label: str | None,
    normal: Sequence[str],
    fitted: Sequence[str] | None,
    labelled: str,
    texts: Sequence[str] = (),
    pictures: Sequence[str] | None = None,
) -> tuple[Any, NDArray[np.int64]]:
    """Return the rows of a file that no label marks as anomalous, and their numbers.

    Parameters
    ----------
    data : str
        What `anograd.data.scan` takes.
    label : str or None
        As for `read_labelled`; a file that has no such column is taken to be normal.
    normal : sequence of str
        The normal labels as somebody typed them.
    fitted : sequence of str or None
        The columns that the detector was fitted on, where it knows their names.
    labelled : str
        The file whose rows a file of labels is for: those of another one it says nothing of.
    texts, pictures : sequence of str
        As for `read_features`.

    Raises
    ------
    ValueError
        As for `read_labelled`.
    """
    X, y = scan(data, texts, pictures), None
    if label is not None and (data == labelled or label in (_columns(X) or ())):
        X, y = _marked(X, data, label, normal)
    return unmarked(only_fitted(X, data, fitted), y)


def unmarked(X: Any, y: Array | None) -> tuple[Any, NDArray[np.int64]]:
    """Return the rows that no label marks as anomalous, and their numbers.

    Parameters
    ----------
    X : array, frame or lazy frame, (n, ...)
    y : array (n,) or None
        As `read_labelled` returns it.
    """
    kept = np.flatnonzero(~labels(y, number_of_rows(X)))
    return rows_at(X, kept), kept


def parted(X: Any, y: Array | None) -> tuple[Any, Any]:
    """Return the rows that no label marks as anomalous and those that one does; None in place of no row.

    Parameters
    ----------
    X : array, frame or lazy frame, (n, ...)
    y : array (n,) or None
        As `read_labelled` returns it.
    """
    if y is None or not len(y):
        return X, None
    if (np.asarray(y) == 1).all() or (np.asarray(y) == -1).all():  # `labels` wants normal rows among them
        return None, X
    marked = labels(y, len(y))
    normal, odd = (rows_at(X, np.flatnonzero(which)) for which in (~marked, marked))
    return normal, odd if marked.any() else None


def only_fitted(X: Any, data: str, fitted: Sequence[str] | None) -> Any:
    """Return a table without the columns that a detector does not know, which a warning names.

    Parameters
    ----------
    X : array, frame or lazy frame
    data : str
        What the warning calls it.
    fitted : sequence of str or None
        The columns that the detector was fitted on, where it knows their names.

    Warns
    -----
    UserWarning
        For columns that are left out. Where one of the fitted columns is missing all stay,
        so that the error to come can name them.
    """
    there = _columns(X)
    return X if there is None else X.drop(_extra(there, data, fitted))


def _extra(there: Sequence[str], data: str, fitted: Sequence[str] | None) -> list[str]:
    """Return the columns that a detector does not know, after a warning."""
    if fitted is None or not set(fitted) <= set(there):
        return []
    if [name for name in there if name in set(fitted)] != list(fitted):
        kind = "csv" if data == "-" or data.lower().endswith(".csv") else "parquet"
        raise ValueError(
            f"{data!r} has the columns of the fit in another order; feature names must be in the same order "
            "as they were in fit. Write them so: N = anograd.load('MODEL').feature_names_in_.tolist(); "
            f"polars.read_{kind}('FILE').select(*N, polars.exclude(N)).write_{kind}('ordered.{kind}')"
        )
    extra = [name for name in there if name not in set(fitted)]
    if extra:
        warnings.warn(
            f"{data!r} has columns that the model was not fitted on, and they are left out: {_listed(extra)}",
            stacklevel=3,
        )
    return extra


def _without(X: Any, data: str, columns: Sequence[str], flag: str) -> Any:
    """Return a table without some columns, which must be there."""
    there = _columns(X)
    if not columns:
        return X
    if there is None:
        raise ValueError(f"{flag} leaves out a column, but {data!r} holds an array; leave {flag} out")
    _check_there(there, data, columns, flag)
    return X.drop(list(dict.fromkeys(columns)))


def _check_there(there: Sequence[str], data: str, columns: Sequence[str], flag: str) -> None:
    for name in columns:
        if name not in there:
            raise ValueError(
                f"{data!r} has no column {name!r} to leave out, it has {_listed(there)}; give one of "
                f"them, or leave {flag} out"
            )


def _columns(X: Any) -> list[str] | None:
    return list(X.collect_schema().names()) if is_frame(X) or is_lazy(X) else None


def _split(X: Any, data: str, label: str) -> tuple[Any, Any]:
    """Return the rows, and one label for each of them: a polars Series or an array."""
    there = _columns(X)
    if there is not None and label in there:
        column = X.select(label)
        return X.drop(label), (collect(column) if is_lazy(X) else column)[label]
    if there is not None and ".np" not in label:
        raise ValueError(
            f"{data!r} has no column {label!r}, it has {_listed(there)}; --label takes one of them, or a "
            "file of labels (y.npy, y.npz:key)"
        )
    found, n = read(label), number_of_rows(X)
    if not isinstance(found, np.ndarray) or found.shape != (n,):
        raise ValueError(
            f"the labels {label!r} have the shape {found.shape}, but {data!r} holds {n} rows; one label "
            f"a row is wanted, shape ({n},), as y.npy or y.npz:key"
        )
    return X, np.char.decode(found) if found.dtype.kind == "S" else found


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN is unlike itself, whatever kind of float it is


def _means(value: Any, text: str) -> bool:
    """Tell whether a text stands for a label: 1 for 1.0, true for True, else letter by letter."""
    if isinstance(value, bool):
        return text.lower() in (str(value).lower(), str(int(value)))
    if isinstance(value, int | float | Decimal):
        with suppress(ValueError):
            return float(text) == float(value)
    return str(value) == text


def _listed(values: Iterable[Any]) -> str:
    shown = [repr(value) for value in values]
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
