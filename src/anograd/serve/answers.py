"""From rows to the JSON that is answered: what the model is, scores and verdicts, and why."""

from __future__ import annotations

import json
import math
import sys
import warnings
from typing import Any

import numpy as np

from anograd import report
from anograd._version import __version__
from anograd.data import cells, number_of_rows, rows_at
from anograd.decide import counted
from anograd.detectors import Detector
from anograd.reasons import as_data
from anograd.serve.limits import MOST_EXPLAINED, MOST_SHOWN, Limits
from anograd.serve.problems import Problem
from anograd.serve.rows import Rows, column_names
from anograd.serve.uploads import endings

LARGEST = sys.float_info.max


def about(detector: Detector, limits: Limits) -> dict[str, Any]:
    """Return what a model is and what it takes, fit for JSON.

    Parameters
    ----------
    detector : Detector
    limits : Limits
    """
    encoder, m, known = detector.encoder_, len(detector.calibration_.scores), detector.calibration_.anomalies
    shape = " x ".join(map(str, encoder.shape))
    columns: list[dict[str, str]] = []
    if encoder.table is not None:
        kinds = encoder.table.state()["kinds"]
        columns = [
            {"name": name, "kind": kind} for name, kind in zip(column_names(detector), kinds, strict=True)
        ]
        row = f"a list of {len(columns)} cells in the order of the columns"
        row += ", or an object with a cell for each name" if encoder.table.names_in else ""
        row += "; null for an empty cell" if encoder.table.missing == "impute" else "; no cell may be empty"
    elif encoder.pixels is not None:
        whole = "whole numbers" if encoder.pixels.integer else "numbers"
        row = f"nested lists of {shape} {whole}, mostly {encoder.pixels.low:g} to {encoder.pixels.high:g}"
    else:
        row = f"nested lists of {shape} numbers, as the network takes them"
    return {
        "model": type(detector).__name__,
        "version": __version__,
        "paper": detector.paper.cite(),
        "kind": encoder.kind,
        "shape": list(encoder.shape),
        "columns": columns,
        "named": encoder.table is not None and encoder.table.names_in is not None,
        "row": row,
        "files": list(endings(detector)),
        "rule": {
            "default": {"alpha": 0.05},
            "alpha": "share of normal rows that raise an alarm",
            "fdr": "share of the alarms that may be false",
            "budget": "rows there is time for: the highest scores",
            **({"costs": "what a false alarm and a miss cost: the line that costs least"} if known else {}),
            "calibration": f"{counted(m, 'normal row')}; {report.smallest_p(m)}",
            "smallest_p": 1 / (m + 1),
        },
        "limits": {
            "rows": limits.rows,
            "bytes": limits.bytes,
            "seconds": limits.seconds,
            "explained": most_explained(detector),
        },
    }


def most_explained(detector: Detector) -> int:
    """Return how many rows are explained at once: fewer, where a row has very many pixels."""
    return max(1, min(MOST_EXPLAINED, MOST_SHOWN // max(1, math.prod(detector.encoder_.shape))))


def scored(detector: Detector, rows: Rows, rule: dict[str, Any]) -> dict[str, Any]:
    """Return scores (high = anomalous), p values and verdicts of rows, fit for JSON.

    Parameters
    ----------
    detector : Detector
    rows : Rows
    rule : dict
        What `Calibration.detect` takes.

    Raises
    ------
    ValueError
        Wrong values, in the words of the detector.
    """
    scores = detector.anomaly_score(rows.X)
    p = detector.calibration_.p_values(scores)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alarms = detector.calibration_.detect(scores, **rule)
    return {
        "rule": rule or {"alpha": 0.05},
        "rows": len(scores),
        "alarms": int(alarms.sum()),
        "names": list(rows.names),
        "scores": np.clip(scores, -LARGEST, LARGEST).tolist(),
        "p_values": p.tolist(),
        "anomalies": alarms.tolist(),
        "warnings": rows.said + [str(one.message) for one in caught],
    }


def explained(
    detector: Detector, rows: Rows, rule: dict[str, Any], index: list[int] | None = None
) -> dict[str, Any]:
    """Return what `scored` does, and under "reasons" why some rows score as they do.

    Parameters
    ----------
    detector : Detector
    rows : Rows
    rule : dict
    index : list of int, optional
        The rows to explain; all, where they are few enough.

    Raises
    ------
    Problem
        400 there is no such row, 413 they are too many.
    ValueError
        Wrong values, in the words of the detector.
    """
    n, most = number_of_rows(rows.X), most_explained(detector)
    chosen = np.array(list(range(n)) if index is None else index, dtype=np.int64)
    if len(chosen) > most:
        raise Problem(413, f"{len(chosen):,} rows were to be explained; at most {most} at once")
    answer = scored(detector, rows, rule)  # says what is wrong where there is no row at all
    if not len(chosen) or chosen.min() < 0 or chosen.max() >= n:
        raise Problem(400, f"rows {index} were to be explained; there are the rows 0 to {n - 1}")
    some = rows_at(rows.X, chosen)
    found = detector.explain(some)
    p = np.array(answer["p_values"])[chosen]
    given = cells(some) if found.names else None
    answer["reasons"] = as_data(found, [rows.names[i] for i in chosen], p, given)
    for i, reason in zip(chosen, answer["reasons"], strict=True):
        reason["anomaly"] = answer["anomalies"][i]
    return answer


def dumps(answer: Any) -> bytes:
    """Return an answer as JSON, in which every number is finite.

    Examples
    --------
    >>> dumps({"given": [float("nan"), 1.5]})
    b'{"given": [null, 1.5]}'
    """
    try:
        return json.dumps(answer, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(answer), allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else math.copysign(LARGEST, value)
    return value
