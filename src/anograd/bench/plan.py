"""A run file becomes a plan: each combination of data set, protocol, options, detector and seed, a cell."""

from __future__ import annotations

import itertools
import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from anograd.bench import sets
from anograd.bench.entrants import Entrant
from anograd.bench.names import unknown
from anograd.bench.protocols import PROTOCOLS, Protocol
from anograd.bench.results import Line
from anograd.bench.roster import roster

EXAMPLE = '[[run]] protocol = "adbench", data = ["adbench/*"], detectors = ["r2ad2", "catboost"]'
TOP = ("results", "seeds", "run", "detectors", "seconds", "entrants")
RUN = ("protocol", "data", "detectors", "seeds", "options")
SECONDS = 1800.0
MOST_CELLS, SPLIT = 100_000, "write fewer, or several run files"


@dataclass(frozen=True)
class Cell:
    """One measurement to be made.

    Parameters
    ----------
    data, protocol : str
        By name.
    options : mapping
        Of the protocol, only those that the run file gives.
    detector : str
        As the run file calls it.
    entrant : str
        The detector that is fitted.
    settings : mapping
        What its fit is given.
    seed : int
    """

    data: str
    protocol: str
    options: Mapping[str, Any]
    detector: str
    entrant: str
    settings: Mapping[str, Any]
    seed: int

    def line(self) -> Line:
        """Return the part of a result line that says what was measured."""
        named = {"detector": self.entrant} if self.entrant != self.detector else {}
        return {
            "data": self.data,
            "protocol": self.protocol,
            "options": dict(self.options),
            "detector": self.detector,
            "settings": {**named, **self.settings},
            "seed": self.seed,
        }

    def made(self) -> Protocol:
        """Return the protocol with its options."""
        return PROTOCOLS[self.protocol](**self.options)


class Named(NamedTuple):
    """What a run file means by a detector's name: who is fitted, and each of the settings in turn."""

    entrant: str
    settings: list[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What a run file asks for.

    Parameters
    ----------
    cells : tuple of Cell
        In the order in which they are written to the results.
    results : Path
        The results file.
    seconds : float
        How long one cell may take before it is ended and counted as failed.
    unsuited : tuple of str
        Combinations that were left out, with the reason.
    entrants : str, optional
        A module with entrants of the reader's own, see `roster`.
    """

    cells: tuple[Cell, ...]
    results: Path
    seconds: float
    unsuited: tuple[str, ...] = ()
    entrants: str | None = None


def read(path: Path) -> Plan:
    """Return the plan that a run file asks for.

    Parameters
    ----------
    path : Path
        A TOML file; see ``docs/bench.md``.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        No TOML, or a word that is not known; the message tells the nearest ones.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no run file {str(path)!r}; write one, such as {EXAMPLE}")
    try:
        asked = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is no TOML: {error}") from error
    try:
        return _plan(path, asked)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{str(path)!r}: a word has a value of another kind than it may have ({error}); see "
            f"docs/bench.md, or write {EXAMPLE}"
        ) from error


def _plan(path: Path, asked: dict[str, Any]) -> Plan:
    _known("word at the top", asked, TOP)
    entrants = roster(asked.get("entrants"))
    runs = asked.get("run")
    if not isinstance(runs, list) or not runs:
        raise ValueError(f"no [[run]] is there; write {EXAMPLE}")
    own = asked.get("detectors", {})
    named = {name: Named(name, [{}]) for name in entrants}
    for name, settings in own.items():
        base = settings.get("detector", name)
        if base not in entrants:
            raise ValueError(f"[detectors.{name}]: {unknown(base, entrants, 'detector')}")
        fixed = {word: value for word, value in settings.items() if word not in ("detector", "sweep")}
        named[name] = Named(base, [fixed | given for given in _crossed(settings.get("sweep", {}))])
    seeds = asked.get("seeds", [0, 1, 2])
    cells: dict[str, Cell] = {}
    unsuited: dict[str, None] = {}
    for number, run in enumerate(runs, start=1):
        where = f"[[run]] number {number}"
        try:
            for cell in _cells(run, named, seeds):
                why = _unsuited(cell, entrants[cell.entrant])
                if why:
                    unsuited[why] = None
                else:
                    cells[json.dumps(cell.line(), sort_keys=True)] = cell
                if len(cells) > MOST_CELLS:
                    raise ValueError(f"more than {MOST_CELLS:,} cells are asked for: {SPLIT}")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    results = path.parent / (asked.get("results") or f"{path.stem}.jsonl")
    seconds = asked.get("seconds", SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise ValueError(f"seconds = {seconds!r}: a number above 0 is wanted, such as {SECONDS}")
    if not cells and not unsuited:
        raise ValueError("nothing is asked for: seeds, data or detectors are empty")
    return Plan(tuple(cells.values()), results, seconds, tuple(unsuited), asked.get("entrants"))


def _cells(run: Any, named: Mapping[str, Named], seeds: Sequence[int]) -> Iterator[Cell]:
    _known("word", run, RUN)
    for word in ("protocol", "data", "detectors"):
        if word not in run:
            raise ValueError(f"{word} is not said; write {EXAMPLE}")
    if run["protocol"] not in PROTOCOLS:
        raise unknown(run["protocol"], PROTOCOLS, "protocol")
    protocol = PROTOCOLS[run["protocol"]]
    data = list(_matching(_listed(run["data"])))
    detectors = _listed(run["detectors"])
    for name in detectors:
        if name not in named:
            raise unknown(name, named, "detector")
    seeds = run.get("seeds", seeds)
    if not isinstance(seeds, list) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError(f"seeds = {seeds!r}: whole numbers of 0 or more are wanted, such as [0, 1, 2]")
    options = run.get("options", {})
    _known("option", options, [f.name for f in fields(protocol)])  # type: ignore[arg-type]
    for seed in seeds:
        for name in data:
            classes = {"inlier": list(range(sets.find(name).classes))} if protocol.images else {}
            for given in _crossed({**classes, **options}):
                protocol(**given).check(sets.find(name), name)
                for detector in detectors:
                    for settings in named[detector].settings:
                        entrant = named[detector].entrant
                        yield Cell(name, run["protocol"], given, detector, entrant, settings, seed)


def _matching(patterns: Sequence[str]) -> Iterator[str]:
    """Yield the data sets that the patterns name, each once, in the order given."""
    seen = set()
    for pattern in patterns:
        names = [name for name in sets.registry() if fnmatchcase(name, pattern)] or [pattern]
        for name in names:
            sets.find(name)
            if name not in seen:
                seen.add(name)
                yield name


def _crossed(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every combination of options, a list standing for each of its values in turn."""
    choices = {word: _listed(value) for word, value in options.items()}
    if (count := math.prod(map(len, choices.values()))) > MOST_CELLS:
        raise ValueError(f"{count:,} combinations of {', '.join(choices)} are asked for: {SPLIT}")
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def _unsuited(cell: Cell, entrant: Entrant) -> str | None:
    """Return why a detector cannot be measured in this way, None where it can."""
    if entrant.known == "needed" and not cell.made().knows:
        return (
            f"{cell.detector} learns from known anomalies, and {cell.protocol} {dict(cell.options)} has none"
        )
    if entrant.rows == "images" and not sets.find(cell.data).images:
        return f"{cell.detector} takes images, and {cell.data} is a table"
    return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _known(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for word in given:
        if word not in known:
            raise unknown(word, known, what)
