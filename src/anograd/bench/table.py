"""Result lines become Markdown: a table a regime, with what was compared, what failed, and what differs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from anograd.bench import stats
from anograd.bench.regimes import MEASURES, SCORE, Cell, Regime, cells, means, split
from anograd.bench.results import Line

NOTHING = "Not measured yet."
NOT_RUN = "not run"
WIDEST = 12  # data sets side by side; more become rows
FEWEST = 6  # data sets: on fewer, no signed-rank test can find p < 0.05
MESSAGE = 200  # characters of an error that a page shows


def tables(
    lines: Iterable[Line],
    measure: str = "auroc",
    *,
    detectors: Sequence[str] | None = None,
    scores: Sequence[str] = (SCORE,),
    labels: Mapping[str, str] | None = None,
) -> str:
    """Return a Markdown table of detectors and data sets for each regime, with its conditions and its tests.

    Cells are means over seeds with half their 95 % interval; the best of a data set is bold. The mean and the
    mean rank are over the data sets on which every detector has a value; those that are left out are named.

    Parameters
    ----------
    lines : iterable of dict
        As from `anograd.bench.results.read`.
    measure : str
        High = better.
    detectors : sequence of str, optional
        Which, in this order; left out, all.
    scores : sequence of str
        Which scores of each fit, such as ("score", "twin").
    labels : mapping of str to str, optional
        What detectors are called; left out, by their names.

    Raises
    ------
    ValueError
        A measure or a score that no line has.

    Examples
    --------
    >>> conditions = {"protocol": "adbench", "options": {}, "regime": "clean", "settings": {}, "seed": 0}
    >>> scores = {"score": {"auroc": 0.9}}
    >>> rows = {"data": "wine", "known": 0, "trained_on": 99}
    >>> line = {**conditions, **rows, "detector": "loss", "scores": scores}
    >>> print(tables([line]))  # doctest: +ELLIPSIS
    **adbench, clean.** AUROC...
    <BLANKLINE>
    | detector | wine | mean | mean rank |
    | --- | --- | --- | --- |
    | loss | 0.900 | 0.900 | 1.00 |
    ...
    """
    made = [
        _one(regime, group, measure, cells(group, measure, detectors=detectors, scores=scores, labels=labels),
             absent(group, detectors, labels))
        for regime, group in split(lines).items()
    ]  # fmt: skip
    return "\n\n".join(filter(None, made)) or NOTHING


def _one(regime: Regime, lines: Sequence[Line], measure: str, found: Sequence[Cell], missing: str) -> str:
    if not found:
        return ""
    used = [cell.line for cell in found]
    seeds = {cell.seed for cell in found}
    rows = list(dict.fromkeys(cell.row for cell in found))
    data = sorted({cell.data for cell in found})
    table = means(found)
    whole, left_out = stats.blocks(table)
    left_out = [name for name in data if name not in whole]
    placed = stats.ranks(table)
    by_place: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        by_place.setdefault((cell.row, cell.data), []).append(cell)
    grid = [[text(by_place.get((row, one), []), len(seeds)) for one in data] for row in rows]
    columns = [
        bold([line[i] for line in grid], [table.get(row, {}).get(one) for row in rows])
        for i, one in enumerate(data)
    ]
    averages = [statistics.fmean(table[row][one] for one in whole) if row in placed else None for row in rows]
    columns.append(bold([f"{one:.3f}" if one is not None else "" for one in averages], averages))
    ranked = [placed.get(row) for row in rows]
    worst_first = [-rank if rank is not None else None for rank in ranked]
    columns.append(bold([f"{one:.2f}" if one is not None else "" for one in ranked], worst_first))
    head = [*data, "mean", "mean rank"]
    if len(data) > WIDEST:
        body = [[name, *column] for name, column in zip(head, columns, strict=True)]
        shown = markdown(["data set", *rows], body)
    else:
        shown = markdown(
            ["detector", *head], [[row, *line] for row, *line in zip(rows, *columns, strict=True)]
        )
    over = over_which(whole, left_out, "Mean and mean rank")
    parts = [
        f"{about(regime, used, measure)} {missing}".strip(), shown, over, failures(found),
        differences(table, placed, len(whole)), origin(used),
    ]  # fmt: skip
    return "\n\n".join(filter(None, parts))


def text(found: Sequence[Cell], seeds: int) -> str:
    """Return what stands in a table's cell: mean and half interval, how many seeds if not all, what failed.

    Parameters
    ----------
    found : sequence of Cell
        One a seed.
    seeds : int
        How many there are elsewhere.
    """
    values = [cell.value for cell in found if cell.value is not None]
    failed = len(found) - len(values)
    if not found:
        return NOT_RUN
    if not values:
        return "failed"
    count = f" ({len(values)})" if len(values) != seeds else ""
    return shown(stats.mean(values)) + count + (f", {failed} failed" if failed else "")


def shown(mean: stats.Mean) -> str:
    """Return a mean and half its interval, or of two seeds both ends, three digits each.

    Examples
    --------
    >>> shown(stats.Mean(0.9, 0.0123, 3)), shown(stats.mean([0.8, 0.9]))
    ('0.900 ± 0.012', '0.850 (0.800 to 0.900)')
    """
    if mean.ends is not None:
        low, high = mean.ends
        return f"{mean.value:.3f} ({low:.3f} to {high:.3f})"
    return f"{mean.value:.3f}" + (f" ± {mean.half:.3f}" if mean.half is not None else "")


def bold(texts: Sequence[str], values: Sequence[float | None]) -> list[str]:
    """Return texts with those of the highest value bold; values that read alike are alike.

    Parameters
    ----------
    texts : sequence of str
    values : sequence of float or None
        None where there is none.

    Examples
    --------
    >>> bold(["0.500", "0.700", "failed"], [0.5, 0.7, None])
    ['0.500', '**0.700**', 'failed']
    """
    there = [round(value, 3) for value in values if value is not None]
    if len(there) < 2:
        return list(texts)
    best = max(there)
    return [
        f"**{one}**" if value is not None and round(value, 3) == best else one
        for one, value in zip(texts, values, strict=True)
    ]


def about(regime: Regime, lines: Sequence[Line], measure: str, what: str = "") -> str:
    """Return the line above a table: protocol, options and regime, measure, seeds, rows and known anomalies.

    Parameters
    ----------
    regime : Regime
    lines : sequence of dict
        Those that the table is made of.
    measure : str
    what : str
        What the values are means of besides seeds.
    """
    seeds = sorted({line["seed"] for line in lines})
    name = MEASURES.get(measure, measure.replace("_", " "))
    values = f"{name[0].upper()}{name[1:]}, "
    if len(seeds) == 1:
        values += f"{what or 'one seed'}{f', one seed ({seeds[0]})' if what else f' ({seeds[0]})'}"
    else:
        listed = f"{', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"
        interval = len(seeds) >= stats.FEWEST
        values += f"{what or 'mean'} "
        values += "± half of the 95 % interval over" if interval else "(lower to higher) of"
        values += f" seeds {listed}"
    rows, known = _range(lines, "trained_on"), _range(lines, "known")
    return f"**{regime}.** {values}; trained on {rows} rows, {known} known anomalies."


def _range(lines: Sequence[Line], field: str) -> str:
    there = [line[field] for line in lines if line.get(field) is not None]
    if not there:
        return "an unknown number of"
    low, high = min(there), max(there)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def over_which(whole: Sequence[str], left_out: Sequence[str], what: str) -> str:
    """Return which data sets an average is over, and which it leaves out.

    Examples
    --------
    >>> over_which(["a", "b"], ["c"], "Mean")
    'Mean over the 2 data sets on which every detector has a value; left out: c.'
    """
    if not left_out:
        return f"{what} over {'all ' if len(whole) > 1 else ''}{_sets(len(whole))}."
    which = f"the {_sets(len(whole))} on which every detector has a value"
    if not whole:
        return f"{what}: none, as there is no data set on which every detector has a value."
    return f"{what} over {which}; left out: {', '.join(left_out)}."


def _sets(count: int) -> str:
    return f"{count} data set{'' if count == 1 else 's'}"


def absent(
    lines: Sequence[Line], detectors: Sequence[str] | None, labels: Mapping[str, str] | None = None
) -> str:
    """Return which of the detectors that were asked for have no line.

    Parameters
    ----------
    lines : sequence of dict
    detectors : sequence of str or None
    labels : mapping of str to str, optional
    """
    there = {line["detector"] for line in lines}
    missing = [(labels or {}).get(name, name) for name in detectors or () if name not in there]
    return f"Not measured yet: {', '.join(missing)}." if missing else ""


def failures(found: Iterable[Cell], option: str = "") -> str:
    """Return what failed, with its message, as a list; nothing where nothing did.

    Parameters
    ----------
    found : iterable of Cell
    option : str
        One that the cells differ in, which is then said of each.
    """
    where: dict[tuple[str, str], dict[str, set[int]]] = {}
    for cell in found:
        if cell.failed:
            message = " ".join(cell.failed.split())
            message = message if len(message) <= MESSAGE else message[:MESSAGE] + " ..."
            sets = where.setdefault((cell.row, message), {})
            told = f", {option} {cell.line['options'].get(option)}" if option else ""
            sets.setdefault(cell.data + told, set()).add(cell.seed)
    together: dict[tuple[str, str], list[str]] = {}
    for (row, message), sets in where.items():
        places = (f"{data} (seed {', '.join(map(str, sorted(seeds)))})" for data, seeds in sets.items())
        together.setdefault((", ".join(places), message), []).append(row)
    items = [f"- {', '.join(rows)} on {places}: {message}" for (places, message), rows in together.items()]
    return "\n".join(["Failed:", "", *items]) if items else ""


def differences(table: stats.Table, placed: Mapping[str, float], sets: int) -> str:
    """Return what tests say: Friedman over all detectors, and each against the one of the best mean rank.

    Parameters
    ----------
    table : mapping of detector to mapping of data set to float
    placed : mapping of detector to float
        Mean ranks.
    sets : int
        Complete data sets.
    """
    if len(placed) < 2:
        return ""
    if sets < FEWEST:
        return f"No test: on fewer than {FEWEST} data sets no difference can be found at p < 0.05."
    best = min(placed, key=lambda name: placed[name])
    p = stats.wilcoxon_holm(table, best)
    listed = ", ".join(f"{name} {p_value(p[name])}" for name in sorted(p, key=lambda name: p[name]))
    overall = ""
    if len(placed) > 2:
        overall = (
            f"Friedman over {len(placed)} detectors and {sets} data sets: {p_value(stats.friedman(table))}. "
        )
    return (
        f"{overall}Against {best}, the best in mean rank (two-sided Wilcoxon signed-rank over {sets} data "
        f"sets, Holm-corrected for {len(p)}): {listed}."
    )


def p_value(p: float) -> str:
    """Return a p value as people write it.

    Examples
    --------
    >>> p_value(0.0312), p_value(1e-9)
    ('p = 0.031', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def origin(lines: Sequence[Line]) -> str:
    """Return one sentence on where the numbers come from: machine, versions, commit."""
    fields = ("machine", "torch", "anograd", "commit")
    there = {field: sorted({str(line[field]) for line in lines if line.get(field)}) for field in fields}
    if not any(there.values()):
        return ""
    machine = "; ".join(there["machine"]) or "a machine not named"
    rest = "; ".join(
        f"{field} {', '.join(there[field])}" for field in ("torch", "anograd", "commit") if there[field]
    )
    return f"Measured on {machine}; {rest}."


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Return a Markdown table.

    Parameters
    ----------
    head : sequence of str
    rows : iterable of sequence of str

    Examples
    --------
    >>> print(markdown(["a", "b"], [["1", "2|3"]]))
    | a | b |
    | --- | --- |
    | 1 | 2\|3 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )
