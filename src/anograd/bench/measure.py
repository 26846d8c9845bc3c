"""One cell measured: split, fit, score, and what came out and what it cost."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import f1_score, precision_recall_curve

from anograd.bench import sets
from anograd.bench.entrants import Entrant, Fitted, Floats
from anograd.bench.plan import Cell
from anograd.bench.protocols import Split
from anograd.bench.results import Line
from anograd.evaluate import ranking
from anograd.heap import give_freed_memory_back

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(cell: Cell, entrants: Mapping[str, Entrant]) -> Line:
    """Return the result line of one cell, without versions and machine.

    Parameters
    ----------
    cell : Cell
    entrants : mapping of str to Entrant

    Notes
    -----
    An exception is a result: ``failed`` holds its message.
    """
    line = cell.line()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _measure(cell, entrants[cell.entrant], line)
    except Exception as error:  # a rival that fails is a result, and the run goes on
        return line | {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def _measure(cell: Cell, entrant: Entrant, line: Line) -> Line:
    """Return the line; what is known of it is in `line` even where the rest raises."""
    data = sets.find(cell.data)
    split = cell.made().split(data, sets.load(cell.data), cell.seed)
    if entrant.rows == "flat":
        split = split.flat()
    rows, known = split.rows, split.known
    if entrant.known == "ignored":
        rows, known = rows[known == 0], known[known == 0]
    line |= {
        "regime": split.regime,
        "trained_on": len(rows),
        "known": int(known.sum()),
        "test_rows": len(split.test),
        "test_anomalies": int(split.odd.sum()),
    }
    before = _restart_peak()
    began, cpu = time.perf_counter(), time.process_time()
    fitted = entrant.fit(rows, known, seed=cell.seed, **cell.settings)
    if not isinstance(fitted, Fitted) or "score" not in fitted.scores:
        given = "no 'score' was" if isinstance(fitted, Fitted) else f"a {type(fitted).__name__} was"
        raise ValueError(f"{given} given; wanted is Fitted({{'score': rows -> one number a row}})")
    weights = None if fitted.weights is None else index(fitted.weights)  # of NumPy's kinds of integers, too
    cost = {
        "fit_seconds": round(time.perf_counter() - began, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }
    began = time.perf_counter()
    # Each on rows of its own, which it may write over.
    scores = {name: np.asarray(score(split.test.copy())) for name, score in fitted.scores.items()}
    cost["score_seconds"] = round(time.perf_counter() - began, 4)
    found = {name: measures(values, split) for name, values in scores.items()}
    peak = _peak()
    mebibytes = None if before is None or peak is None else round(max(0, peak - before) / 1024, 1)
    return line | {"scores": found, **cost, "peak_mib": mebibytes, "weights": weights}


def measures(scores: Floats, split: Split) -> dict[str, float]:
    """Return how well scores rank the test rows: AUROC, average precision, F1 where a threshold is chosen.

    Parameters
    ----------
    scores : ndarray, (m,)
        High = anomalous.
    split : Split

    Raises
    ------
    ValueError
        Scores that are no numbers.
    """
    if scores.dtype.kind not in "biuf":
        raise ValueError(f"scores of {scores.dtype} were given; a real number a row is wanted")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are no finite numbers")
    auroc, precision = ranking(scores, split.odd)
    found = {"auroc": round(auroc, 5), "average_precision": round(precision, 5)}
    for name, part in split.parts.items():
        auroc, precision = ranking(scores[part], split.odd[part])
        found |= {f"auroc_{name}": round(auroc, 5), f"average_precision_{name}": round(precision, 5)}
    if split.choosing is not None:
        found["f1"] = round(_f1(scores, split.odd, split.choosing), 5)
    return found


def _f1(scores: Floats, odd: Any, choosing: Any) -> float:
    """Return F1 on the other rows at the threshold that is best on the choosing ones."""
    precision, recall, thresholds = precision_recall_curve(odd[choosing], scores[choosing])
    both = precision[:-1] + recall[:-1]
    best = thresholds[int(np.argmax(precision[:-1] * recall[:-1] / np.where(both > 0, both, 1)))]
    return float(f1_score(odd[~choosing], scores[~choosing] >= best))


def _restart_peak() -> int | None:
    """Return the memory in use, KiB, and let its peak start from there; None where a system cannot tell."""
    give_freed_memory_back()  # else what comes next would need none of its own
    with suppress(OSError):
        CLEAR.write_text("5")
        return _peak()
    return None


def _peak() -> int | None:
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return None
