"""Rows and labels out of files: which column is the label, and which of its values are normal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from anograd.data import is_frame, read

SHOWN = 20


def read_labelled(data: str, label: str | None, normal: Sequence[str]) -> tuple[Any, list[Any] | None]:
    """Return the rows in a file without their label column, and y for `fit`: 1 marks a known anomaly.

    Parameters
    ----------
    data : str
        What `anograd.data.read` takes.
    label : str or None
        A column of the table in `data`, or a file of labels: ``y.npy``, ``y.npz:key``. None: no labels.
    normal : sequence of str
        The normal labels as somebody typed them; all others are known anomalies. When empty, the labels
        must be 0 and 1, or +1 and -1, and are handed on as they are.

    Raises
    ------
    ValueError
        No such column, another number of labels than rows, a row without one, other labels than 0 and 1 or
        +1 and -1, or a normal one that does not occur; the message lists what there is.
    """
    X = read(data)
    if label is None:
        return X, None
    X, values = _split(X, data, label)
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise ValueError(
                f"{label!r} has no label in row {row}, counted from 0; one a row is wanted: drop the row, or "
                "give it the normal label"
            )
    there = sorted(set(values), key=lambda value: (type(value).__name__, value))
    if not normal:
        if not (set(there) <= {0, 1} or set(there) <= {-1, 1}):
            raise ValueError(
                f"{label!r} holds {_listed(there)}; where labels are not 0 and 1 (1 is a known anomaly) or "
                f"+1 and -1 (-1 is one), say which are normal: --normal VALUE, such as --normal {there[0]}"
            )
        return X, values
    for text in normal:
        if not any(_means(value, text) for value in there):
            raise ValueError(
                f"--normal {text} does not occur in {label!r}, which holds {_listed(there)}; give one of them"
            )
    chosen = {value for value in there if any(_means(value, text) for text in normal)}
    return X, [int(value not in chosen) for value in values]


def read_features(data: str, label: str | None, fitted: Sequence[str] | None) -> Any:
    """Return the rows in a file to be scored, without their label column.

    Parameters
    ----------
    data : str
        What `anograd.data.read` takes.
    label : str or None
        A column to leave out of a table.
    fitted : sequence of str or None
        The columns that the detector was fitted on, where it knows their names.

    Raises
    ------
    ValueError
        No such column, or one too many, which may be the label.
    """
    X = read(data)
    if not is_frame(X):
        if label is not None:
            raise ValueError(f"--label leaves out a column, but {data!r} holds an array; leave --label out")
        return X
    if label is not None:
        if label not in X.columns:
            raise ValueError(
                f"{data!r} has no column {label!r} to leave out, it has {_listed(X.columns)}; give one of "
                "them, or leave --label out"
            )
        return X.drop(label)
    extra = [name for name in X.columns if name not in fitted] if fitted is not None else []
    if fitted is not None and len(extra) == 1 and len(X.columns) == len(fitted) + 1:
        raise ValueError(
            f"{data!r} has one column more than the model was fitted on, {extra[0]!r}; drop it, or, where it "
            f"holds the labels: --label {extra[0]}"
        )
    return X


def _split(X: Any, data: str, label: str) -> tuple[Any, list[Any]]:
    """Return the rows, and one label for each of them."""
    if is_frame(X) and label in X.columns:
        return X.drop(label), X[label].to_list()
    if is_frame(X) and ".np" not in label:
        raise ValueError(
            f"{data!r} has no column {label!r}, it has {_listed(X.columns)}; --label takes one of them, or a "
            "file of labels (y.npy, y.npz:key)"
        )
    found = read(label)
    if not isinstance(found, np.ndarray) or found.shape != (len(X),):
        raise ValueError(
            f"the labels {label!r} have the shape {found.shape}, but {data!r} holds {len(X)} rows; one label "
            f"a row is wanted, shape ({len(X)},), as y.npy or y.npz:key"
        )
    return X, [value.decode() if isinstance(value, bytes) else value for value in found.tolist()]


def _means(value: Any, text: str) -> bool:
    """Tell whether a text stands for a label: 1 for 1.0, true for True, else letter by letter."""
    if isinstance(value, bool):
        return text.lower() in (str(value).lower(), str(int(value)))
    if isinstance(value, int | float):
        with suppress(ValueError):
            return float(text) == value
    return str(value) == text


def _listed(values: Iterable[Any]) -> str:
    shown = [repr(value) for value in values]
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
