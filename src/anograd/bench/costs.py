"""Tables of costs: what a detector is made of, how long it learns, how fast it scores, and its memory."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from anograd.bench.names import unknown
from anograd.bench.regimes import INLIER, names, split, who
from anograd.bench.results import Line
from anograd.bench.table import NOTHING, absent, markdown, origin

NOT_MEASURED = "not measured"


def costs(
    lines: Iterable[Line],
    *,
    against: str | None = None,
    by_data: bool = False,
    detectors: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> str:
    """Return a Markdown table of what detectors cost for each regime, medians over cells.

    Parameters
    ----------
    lines : iterable of dict
        Result lines.
    against : str, optional
        A detector whose trained weights those of the others are compared with.
    by_data : bool
        A row for each detector and data set instead of medians over all.
    detectors : sequence of str, optional
        Which, in this order; left out, all.
    labels : mapping of str to str, optional
        What detectors are called.

    Raises
    ------
    ValueError
        A detector to compare with that no line has.
    """
    lines = list(lines)
    there = sorted({line["detector"] for line in lines})
    if lines and against is not None and against not in there:
        raise unknown(against, there, "detector")
    made = []
    for regime, group in split(lines, (INLIER,)).items():
        chosen = [line for line in group if detectors is None or line["detector"] in detectors]
        if detectors is not None:
            chosen.sort(key=lambda line: list(detectors).index(line["detector"]))
        if not chosen:
            continue
        called = names(group, labels)
        sets: list[str | None] = [*sorted({line["data"] for line in chosen})] if by_data else [None]
        rows = []
        for key in dict.fromkeys(map(who, chosen)):
            for data in sets:
                cells = [line for line in chosen if who(line) == key and data in (None, line["data"])]
                if cells:
                    reference = [
                        line for line in group if line["detector"] == against and data in (None, line["data"])
                    ]
                    rows.append(_row(cells, called[key], data, reference, against))
        head = [
            "detector", *(["data set"] if by_data else []), "weights",
            *([f"weights, beside {(labels or {}).get(against, against)}"] if against else []),
            "fit, seconds", "fit, CPU seconds", "rows scored a second", "peak MiB", "cells",
        ]  # fmt: skip
        intro = (
            f"**{regime}.** Medians over {'the cells of a data set' if by_data else 'all cells'}; weights: "
            "numbers that networks are trained to."
        )
        parts = [
            f"{intro} {absent(group, detectors, labels)}".strip(), markdown(head, rows),
            origin([line for line in chosen if "failed" not in line]),
        ]  # fmt: skip
        made.append("\n\n".join(filter(None, parts)))
    return "\n\n".join(made) or NOTHING


def _row(
    cells: Sequence[Line], called: str, data: str | None, reference: Sequence[Line], against: str | None
) -> list[str]:
    name = cells[0]["detector"]
    measured = [line for line in cells if "failed" not in line]
    failed = f", {len(cells) - len(measured)} failed" if len(measured) < len(cells) else ""
    weights, other = _median(measured, "weights"), _median(reference, "weights")
    speeds = [line["test_rows"] / line["score_seconds"] for line in measured if line.get("score_seconds")]
    kept = [
        called if called.partition(" (")[0] == name else f"{called} (`{name}`)",
        *([data] if data is not None else []),
        _weights(weights) if measured else "failed",
        *([_times(weights, other, name == against)] if against else []),
        _number(_median(measured, "fit_seconds")),
        _number(_median(measured, "cpu_seconds")),
        _number(statistics.median(speeds) if speeds else None),
        _number(_median(measured, "peak_mib")),
    ]
    return [*kept, f"{len(measured)}{failed}"]


def _median(lines: Iterable[Line], field: str) -> float | None:
    there = [line[field] for line in lines if line.get(field) is not None]
    return statistics.median(there) if there else None


def _weights(weights: float | None) -> str:
    return "no network" if weights is None else f"{weights:,.0f}"


def _times(weights: float | None, other: float | None, itself: bool) -> str:
    if not weights or not other or itself:
        return ""
    if weights == other:
        return "as many"
    more = weights > other
    return f"{_number(max(weights, other) / min(weights, other))} times {'more' if more else 'fewer'}"


def _number(value: float | None) -> str:
    """Return a number with three digits that count.

    Examples
    --------
    >>> _number(0.01234), _number(12.34), _number(12345.6)
    ('0.0123', '12.3', '12,346')
    """
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
