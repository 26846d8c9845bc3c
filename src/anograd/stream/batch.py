"""The batch function: a piece of a table becomes a table of scores, for any engine to map over its own."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anograd.data import frame_library
from anograd.decoded import Tally
from anograd.detectors import Detector
from anograd.report import COLUMNS


def score_batch(
    detector: Detector,
    table: Any,
    *,
    alpha: float = 0.05,
    first: int = 0,
    row: str | None = None,
    tally: Tally | None = None,
) -> Any:
    """Return a table of row, score (high = anomalous), p_value (low = anomalous) and anomaly (0 or 1).

    Each row's score, p value and verdict are its own: cut into whatever pieces, a table gives the same, or
    the same but for the last bit of a score. That is why the verdict is by `alpha`; a false-discovery rate or
    a budget looks at all rows together: ``detector.calibration_.detect(scores, fdr=0.05)`` in the end.

    Parameters
    ----------
    detector : Detector
        A fitted one.
    table : pyarrow.Table, polars.DataFrame or pandas.DataFrame
        Holds the columns that the detector was fitted on, in that order; others are left out.
    alpha : float, default 0.05
        False-alarm rate.
    first : int, default 0
        Number of the first row.
    row : str, optional
        A column that tells rows apart, taken over as it is in the place of numbers.
    tally : Tally, optional
        Counts the rows that are unlike those of the fit.

    Returns
    -------
    pyarrow.Table, polars.DataFrame or pandas.DataFrame
        Of the library that the table is of. No rows give no rows.

    Raises
    ------
    TypeError
        The table is of no such library.
    ValueError
        As in `Detector.anomaly_score`, or there is no such column.

    Examples
    --------
    >>> import polars
    >>> from anograd import GradCon
    >>> normal = polars.DataFrame(np.random.default_rng(0).normal(size=(200, 3)), schema=["a", "b", "c"])
    >>> detector = GradCon(epochs=2, random_state=0).fit(normal)
    >>> score_batch(detector, normal.tail(2), first=198)["row"].to_list()
    [198, 199]
    """
    library = frame_library(table)
    if library is None:
        raise TypeError(
            f"a {type(table).__name__} was given; a pyarrow.Table, a polars or a pandas DataFrame is wanted: "
            "polars.DataFrame(rows)"
        )
    names = list(table.column_names if library == "pyarrow" else table.columns)
    if row is not None and row not in names:
        raise ValueError(f"the table has no column {row!r} to tell rows apart, it has {', '.join(names)}")
    n = table.shape[0]
    rows = np.arange(first, first + n) if row is None else table[row]
    fitted = set(getattr(detector, "feature_names_in_", names)) - {row}
    scores = np.zeros(0)
    if n:
        X = _columns(table, library, [name for name in names if name in fitted])
        encoded = torch.cat(list(detector._encode(X)))
        scores = score_encoded(detector, encoded)
        if tally is not None:
            tally.add(encoded.numpy())
    p = detector.calibration_.p_values(scores)
    alarms = detector.calibration_.detect(scores, alpha=alpha).astype(np.int8)
    return _table(library, rows, scores, p, alarms)


def score_encoded(detector: Detector, rows: Tensor) -> NDArray[np.float64]:
    """Return the scores of encoded rows, (n,), the same but for the last bit whatever rows are beside them.

    Each pass is over the same number of rows, the last one filled up: how a kernel rounds depends on it,
    and a little on where in the pass a row stands.

    Parameters
    ----------
    detector : Detector
    rows : torch.Tensor, (n, ...)
        From its ``encoder_``, at least one.
    """
    missing = -len(rows) % detector._at_once()
    filled = torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
    return detector._batched(detector._score_batch, [filled])[: len(rows)]


def _columns(table: Any, library: str, names: Sequence[str]) -> Any:
    return table.select(names) if library != "pandas" else table[list(names)]


def _table(library: str, rows: Any, *columns: NDArray[Any]) -> Any:
    given = dict(zip(COLUMNS, (rows, *columns), strict=True))
    module = importlib.import_module(library)
    if library == "pandas" and hasattr(rows, "to_numpy"):
        given["row"] = rows.to_numpy()  # else the index of the rows would align them
    return module.table(given) if library == "pyarrow" else module.DataFrame(given)
