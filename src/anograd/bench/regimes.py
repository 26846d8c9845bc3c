"""Which result lines may stand in one table, and what each of them says: a regime's lines, and their cells.

Numbers are compared only within a regime: one protocol with one set of options, clean or contaminated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anograd.bench import stats
from anograd.bench.names import unknown
from anograd.bench.results import Line

MEASURES = {"auroc": "AUROC", "average_precision": "average precision"}
SCORE = "score"
INLIER = "inlier"  # the option of one-class protocols: which class is the normal one


@dataclass(frozen=True)
class Regime:
    """Under which conditions numbers may be compared.

    Attributes
    ----------
    protocol : str
    options : str
        The protocol's options as JSON, without those that are swept.
    regime : str
        Such as "clean" or "contaminated".
    """

    protocol: str
    options: str
    regime: str

    def __str__(self) -> str:
        options = (f"{name} {_plain(value)}" for name, value in json.loads(self.options).items())
        return ", ".join([self.protocol, *options, self.regime])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def split(lines: Iterable[Line], swept: Sequence[str] = ()) -> dict[Regime, list[Line]]:
    """Return the lines of each regime, in the order in which regimes first occur.

    Parameters
    ----------
    lines : iterable of dict
        Result lines. One that failed before its regime was known belongs to that of the lines with its
        protocol and options, if there is one alone.
    swept : sequence of str
        Options that may differ within a regime.

    Examples
    --------
    >>> line = {"protocol": "adbench", "options": {"labels": 0.01}, "regime": "clean"}
    >>> [str(regime) for regime in split([line, line])]
    ['adbench, labels 0.01, clean']
    """
    lines = list(lines)
    known: dict[tuple[str, str], set[str]] = {}
    conditions = []
    for line in lines:
        options = {name: value for name, value in sorted(line["options"].items()) if name not in swept}
        conditions.append((line["protocol"], json.dumps(options)))
        if line.get("regime"):
            known.setdefault(conditions[-1], set()).add(line["regime"])
    found: dict[Regime, list[Line]] = {}
    for line, condition in zip(lines, conditions, strict=True):
        regimes = known.get(condition, set())
        only = next(iter(regimes)) if len(regimes) == 1 else "regime unknown"
        found.setdefault(Regime(*condition, line.get("regime") or only), []).append(line)
    return found


@dataclass(frozen=True)
class Cell:
    """What one line says about one score.

    Attributes
    ----------
    row : str
        The detector's label, with settings that tell it from others of its name, and its score unless that is
        the first.
    data : str
    seed : int
    line : dict
        The result line.
    value : float or None
        The measure; None where the cell failed.
    failed : str
        Why there is no value.
    """

    row: str
    data: str
    seed: int
    line: Line
    value: float | None
    failed: str = ""


def cells(
    lines: Sequence[Line],
    measure: str,
    *,
    detectors: Sequence[str] | None = None,
    scores: Sequence[str] = (SCORE,),
    labels: Mapping[str, str] | None = None,
    swept: str | None = None,
) -> list[Cell]:
    """Return what lines say about scores, row after row.

    Parameters
    ----------
    lines : sequence of dict
        Result lines.
    measure : str
        Such as "auroc"; high = better.
    detectors : sequence of str, optional
        Which, in this order; left out, all in the order in which they first occur.
    scores : sequence of str
        Which of the scores of a fit, such as ("score", "twin"); a detector without one has no row for it.
    labels : mapping of str to str, optional
        What detectors are called in tables; left out, by their names.
    swept : str, optional
        A setting that does not tell rows apart.

    Raises
    ------
    ValueError
        A measure that no line has, or scores of which no line has any.
    """
    measured = [one for line in lines for one in line.get("scores", {}).items()]
    if measured:
        _one_of(measure, {name for _, values in measured for name in values}, "measure")
        there = {name for name, _ in measured}
        if not there.intersection(scores):
            _one_of(scores[0], there, "score")
    called = names(lines, labels, swept)
    groups: dict[str, list[Line]] = {}
    for line in lines:
        if detectors is None or line["detector"] in detectors:
            groups.setdefault(called[who(line)], []).append(line)
    order = list(groups)
    if detectors is not None:
        order.sort(key=lambda name: list(detectors).index(groups[name][0]["detector"]))
    return [
        cell
        for name in order
        for score in scores
        for cell in _of_score(groups[name], measure, score, name, first=scores[0])
    ]


def _of_score(lines: Sequence[Line], measure: str, score: str, name: str, *, first: str) -> list[Cell]:
    row = name if score == SCORE else f"{name}: {score}"
    if score != first and not any(score in line.get("scores", {}) for line in lines):
        return []
    found = []
    for line in lines:
        value, why = None, line.get("failed", "")
        if not why and score in line["scores"]:
            value = line["scores"][score].get(measure)
            why = f"no finite {measure}: {value}"
        if value is not None and math.isfinite(value):
            why = ""
        else:
            value = None
        if why or value is not None:
            found.append(Cell(row, line["data"], line["seed"], line, value, why))
    return found


def who(line: Line) -> str:
    """Return what tells a line's detector, with its settings, from others: the key of `names`."""
    return json.dumps([line["detector"], line["settings"]], sort_keys=True)


def names(
    lines: Iterable[Line], labels: Mapping[str, str] | None = None, swept: str | None = None
) -> dict[str, str]:
    """Return what detectors are called, by `who`: label, and settings that differ among those of one name.

    Detectors that share a label have their names after it.

    Parameters
    ----------
    lines : iterable of dict
        All lines that are shown together.
    labels : mapping of str to str, optional
        Left out, detectors are called by their names.
    swept : str, optional
        A setting that is not named.

    Examples
    --------
    >>> short, long = ({"detector": "gradcon", "settings": {"epochs": n}} for n in (5, 20))
    >>> list(names([short]).values()), list(names([short, long]).values())
    (['gradcon'], ['gradcon (epochs 5)', 'gradcon (epochs 20)'])
    """
    everyone = {who(line): line for line in lines}
    settings: dict[str, list[Mapping[str, Any]]] = {}
    for line in everyone.values():
        settings.setdefault(line["detector"], []).append(line["settings"])
    found = {}
    for key, line in everyone.items():
        label = (labels or {}).get(line["detector"], line["detector"])
        told = _differing(line["settings"], settings[line["detector"]], swept)
        found[key] = f"{label} ({', '.join(told)})" if told else label
    of_label: dict[str, set[str]] = {}
    for key, line in everyone.items():
        of_label.setdefault(found[key], set()).add(line["detector"])
    return {
        key: f"{name} [{everyone[key]['detector']}]" if len(of_label[name]) > 1 else name
        for key, name in found.items()
    }


def _differing(own: Mapping[str, Any], every: Sequence[Mapping[str, Any]], swept: str | None) -> list[str]:
    fields = dict.fromkeys(name for one in every for name in one if name != swept)
    return [
        f"{name} {_plain(own.get(name, 'as set'))}"
        for name in fields
        if any(one.get(name, "as set") != every[0].get(name, "as set") for one in every)
    ]


def means(found: Iterable[Cell]) -> dict[str, dict[str, float]]:
    """Return the means over seeds: row -> data set -> value, for `anograd.bench.stats`.

    Parameters
    ----------
    found : iterable of Cell
        Of one regime. A row without any value is not there, nor is a data set that has none in a row.
    """
    gathered: dict[str, dict[str, list[float]]] = {}
    for cell in found:
        if cell.value is not None:
            gathered.setdefault(cell.row, {}).setdefault(cell.data, []).append(cell.value)
    return {
        row: {data: stats.mean(values).value for data, values in sets.items()}
        for row, sets in gathered.items()
    }


def only(lines: Sequence[Line], swept: Sequence[str] = ()) -> Regime:
    """Return the one regime of lines that are to be drawn in one picture.

    Parameters
    ----------
    lines : sequence of dict
    swept : sequence of str
        Options that may differ within a regime.

    Raises
    ------
    ValueError
        There are several, or there is no line.
    """
    found = list(split(lines, swept))
    if len(found) != 1:
        raise ValueError(
            f"a picture is of one regime; got {len(found)}: {'; '.join(map(str, found)) or 'no lines'}; "
            "choose one by its protocol, options and regime"
        )
    return found[0]


def each_class(lines: Iterable[Line]) -> list[Line]:
    """Return lines in which every normal class is a data set of its own, "mnist 8", and no option.

    Parameters
    ----------
    lines : iterable of dict

    Examples
    --------
    >>> [one] = each_class([{"data": "mnist", "options": {"inlier": 8}}])
    >>> one["data"], one["options"]
    ('mnist 8', {})
    """
    return [
        line
        if INLIER not in line["options"]
        else line
        | {
            "data": f"{line['data']} {line['options'][INLIER]}",
            "options": {name: value for name, value in line["options"].items() if name != INLIER},
        }
        for line in lines
    ]


def check_scores(lines: Iterable[Line], scores: Iterable[str]) -> None:
    """Refuse a score that no line has, while there are lines that were measured.

    Parameters
    ----------
    lines : iterable of dict
    scores : iterable of str

    Raises
    ------
    ValueError
        It tells the nearest that there is.
    """
    there = {name for line in lines for name in line.get("scores", {})}
    for score in scores if there else ():
        _one_of(score, there, "score")


def _one_of(given: str, wanted: Iterable[str], what: str) -> None:
    if given not in (wanted := sorted(wanted)):
        raise unknown(given, wanted, what)
