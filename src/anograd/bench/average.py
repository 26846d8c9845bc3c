"""Tables of averages: over data sets as an option is swept, and over classes that take turns as normal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from anograd.bench import stats
from anograd.bench.names import unknown
from anograd.bench.regimes import INLIER, SCORE, Cell, cells, split
from anograd.bench.results import Line
from anograd.bench.table import (
    NOT_RUN,
    NOTHING,
    about,
    absent,
    bold,
    failures,
    markdown,
    origin,
    over_which,
    shown,
)

Units = dict[str, dict[int, float]]  # a data set or a class -> seed -> value


def sweep(
    lines: Iterable[Line],
    option: str,
    measure: str = "auroc",
    *,
    detectors: Sequence[str] | None = None,
    scores: Sequence[str] = (SCORE,),
    labels: Mapping[str, str] | None = None,
) -> str:
    """Return a Markdown table of detectors and values of an option for each regime, means over data sets.

    All means of a table are over the same data sets: those on which every detector that was run has a value
    at every value of the option. Intervals are over seeds.

    Parameters
    ----------
    lines : iterable of dict
        Result lines.
    option : str
        Of the protocol, such as "labels".
    measure : str
        High = better.
    detectors : sequence of str, optional
        Which, in this order; left out, all.
    scores : sequence of str
        Which scores of each fit.
    labels : mapping of str to str, optional
        What detectors are called.

    Raises
    ------
    ValueError
        An option, a measure or a score that no line has.
    """
    lines = list(lines)
    there = {name for line in lines for name in line["options"]}
    if lines and option not in there:
        raise unknown(option, sorted(there), "option")
    made = []
    for regime, group in split(lines, (option,)).items():
        found = cells(group, measure, detectors=detectors, scores=scores, labels=labels)
        if not found:
            continue
        values = in_order({cell.line["options"].get(option) for cell in found})
        rows = list(dict.fromkeys(cell.row for cell in found))
        seeds = len({cell.seed for cell in found})
        units = _units(found, lambda cell: cell.line["options"].get(option), lambda cell: cell.data)
        whole, left_out = complete(list(units.values()), sorted({cell.data for cell in found}))
        columns = _columns(
            rows, values, units, whole, found, lambda cell: cell.line["options"].get(option), seeds
        )
        head = [f"{option} {value}" if value is not None else f"no {option}" for value in values]
        used = [cell.line for cell in found]
        missing = absent(group, detectors, labels)
        parts = [
            f"{about(regime, used, measure, what='mean over data sets')} {missing}".strip(),
            markdown(["detector", *head], [[row, *line] for row, *line in zip(rows, *columns, strict=True)]),
            over_which(whole, left_out, "Means"),
            failures(found, option),
            origin(used),
        ]
        made.append("\n\n".join(filter(None, parts)))
    return "\n\n".join(made) or NOTHING


def inliers(
    lines: Iterable[Line],
    measure: str = "auroc",
    *,
    detectors: Sequence[str] | None = None,
    scores: Sequence[str] = (SCORE,),
    labels: Mapping[str, str] | None = None,
) -> str:
    """Return a Markdown table of data sets and detectors for each regime, means over the normal class.

    In one-class protocols each class takes its turn as the normal one (option "inlier"). A cell is the mean
    over classes of the means over seeds, its interval is over seeds of the mean over classes. All means of a
    data set are over the same classes; those on which a detector has no value are left out and named.

    Parameters
    ----------
    lines : iterable of dict
        Result lines.
    measure : str
        High = better.
    detectors : sequence of str, optional
        Which, in this order; left out, all.
    scores : sequence of str
        Which scores of each fit.
    labels : mapping of str to str, optional
        What detectors are called.

    Raises
    ------
    ValueError
        A measure or a score that no line has, or lines without the option.
    """
    lines = list(lines)
    if any(INLIER not in line["options"] for line in lines):
        raise ValueError(
            "a table over normal classes wants lines with the option 'inlier'; got some without: choose the "
            "protocol that has it"
        )
    made = []
    for regime, group in split(lines, (INLIER,)).items():
        found = cells(group, measure, detectors=detectors, scores=scores, labels=labels)
        if not found:
            continue
        rows = list(dict.fromkeys(cell.row for cell in found))
        seeds = len({cell.seed for cell in found})
        body, notes = [], []
        for data in sorted({cell.data for cell in found}):
            here = [cell for cell in found if cell.data == data]
            units = _units(here, lambda cell: cell.data, lambda cell: str(cell.line["options"][INLIER]))
            classes = [str(one) for one in in_order({cell.line["options"][INLIER] for cell in here})]
            whole, left_out = complete(list(units.values()), classes)
            columns = _columns(rows, [data], units, whole, here, lambda cell: cell.data, seeds)
            body.append([data, *columns[0]])
            left = f"; left out, as a detector has no value: {', '.join(left_out)}" if left_out else ""
            notes.append(f"- {data}: normal classes {', '.join(whole) or 'none'}{left}")
        used = [cell.line for cell in found]
        missing = absent(group, detectors, labels)
        parts = [
            f"{about(regime, used, measure, what='mean over normal classes')} {missing}".strip(),
            markdown(["data set", *rows], body),
            "\n".join(["Means over:", "", *notes]),
            failures(found, INLIER),
            origin(used),
        ]
        made.append("\n\n".join(filter(None, parts)))
    return "\n\n".join(made) or NOTHING


def in_order(values: Iterable[Any]) -> list[Any]:
    """Return values of an option: none, numbers by size, then texts.

    Examples
    --------
    >>> in_order([5, "all", 0.5, None])
    [None, 0.5, 5, 'all']
    """

    def place(value: Any) -> tuple[int, float, str]:
        if value is None:
            return 0, 0.0, ""
        return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))

    return sorted(values, key=place)


def _units(
    found: Iterable[Cell], column: Callable[[Cell], Any], unit: Callable[[Cell], str]
) -> dict[tuple[str, Any], Units]:
    """Return what is averaged in each cell of a table: (row, column) -> unit -> seed -> value."""
    gathered: dict[tuple[str, Any], Units] = {}
    for cell in found:
        if cell.value is not None:
            place = gathered.setdefault((cell.row, column(cell)), {})
            place.setdefault(unit(cell), {})[cell.seed] = cell.value
    return gathered


def complete(units: Sequence[Units], every: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the units that all cells of a table have a value of, and the others.

    Parameters
    ----------
    units : sequence of mapping of unit to mapping of seed to float
        One a cell; a unit is a data set or a class.
    every : iterable of str
        All units, in the order in which they are named.

    Examples
    --------
    >>> complete([{"a": {0: 0.5}, "b": {0: 0.6}}, {"a": {0: 0.7}}], ["a", "b"])
    (['a'], ['b'])
    """
    every = list(every)
    whole = [one for one in every if units and all(one in there for there in units)]
    return whole, [one for one in every if one not in whole]


def _of(units: Units, whole: Sequence[str]) -> Units:
    return {one: units[one] for one in whole}


def _columns(
    rows: Sequence[str],
    values: Sequence[Any],
    units: Mapping[tuple[str, Any], Units],
    whole: Sequence[str],
    found: Sequence[Cell],
    column: Callable[[Cell], Any],
    seeds: int,
) -> list[list[str]]:
    """Return a table's columns, the best of each bold; a mean over fewer or more seeds says over how many."""
    columns = []
    for value in values:
        run = {cell.row for cell in found if column(cell) == value}
        texts: list[str] = []
        numbers: list[float | None] = []
        for row in rows:
            there = units.get((row, value))
            if there is None or not whole:
                texts.append("no common data" if there else "failed" if row in run else NOT_RUN)
                numbers.append(None)
                continue
            mean = stats.pooled(_of(there, whole))
            texts.append(shown(mean) + (f" ({mean.count})" if mean.count != seeds else ""))
            numbers.append(mean.value)
        columns.append(bold(texts, numbers))
    return columns
