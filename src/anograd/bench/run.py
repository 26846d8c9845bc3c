"""A plan is carried out: what is measured already is left, every other cell is measured and its line kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import mean
from typing import Any

from anograd._version import __version__
from anograd.bench import results, sets
from anograd.bench.plan import Cell, Plan
from anograd.bench.results import Line
from anograd.bench.workers import measured

PACKAGES = ("torch", "scikit-learn", "numpy", "catboost", "pyod")


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Parameters
    ----------
    done, cells : int
        Cells measured, those of earlier runs with them, and all.
    failed : int
        Cells whose detector failed.
    left : float or None
        Seconds until the end, by what the same detectors took before; None while nothing has been timed.
    untimed : int
        Cells of a detector that no measured cell tells of: `left` takes the mean of all for them.
    line : Line
        What was measured last.
    """

    done: int
    cells: int
    failed: int
    left: float | None
    untimed: int
    line: Line


def run(
    plan: Plan,
    *,
    processes: int = 1,
    threads: int = 1,
    again: bool = False,
    observe: Callable[[Progress], None] = lambda progress: None,
) -> list[Line]:
    """Return the lines of all cells of a plan, in its order, after measuring those that are not measured yet.

    Parameters
    ----------
    plan : Plan
    processes, threads : int, default 1
        Cells measured at once, and threads that each may use.
    again : bool, default False
        Whether cells that failed before are tried again.
    observe : function, optional
        Is told of every cell that was measured.

    Raises
    ------
    FileNotFoundError
        A data set that is not here; nothing has been measured then.
    ValueError
        Another run is writing to the same results file.

    Notes
    -----
    Lines are appended as they are measured, and a run that was stopped goes on from there; at the end the
    file is put in the plan's order, so that it does not tell how often it was stopped.
    """
    there = {results.key(line): line for line in results.read(plan.results)}
    keys = [results.key(cell.line()) for cell in plan.cells]
    kept = {key: there[key] for key in keys if key in there and not (again and "failed" in there[key])}
    open_cells = [cell for cell, key in zip(plan.cells, keys, strict=True) if key not in kept]
    for name in dict.fromkeys(cell.data for cell in open_cells):
        why = sets.missing(name)
        if why and sets.find(name).openml is None:
            raise FileNotFoundError(f"{name!r} is not here: {why}")
    where = environment(threads)
    clock = _Clock(list(kept.values()))
    with results.held(plan.results):
        for cell, found in measured(open_cells, processes, plan.seconds, threads, plan.entrants):
            line = found | where
            results.append(plan.results, line)
            kept[results.key(line)] = line
            clock.add(line)
            open_cells.remove(cell)
            left, untimed = clock.left(open_cells, processes)
            failed = sum("failed" in line for line in kept.values())
            observe(Progress(len(kept), len(keys), failed, left, untimed, line))
        if kept:
            results.put_in_order(plan.results, keys)
    return [kept[key] for key in keys]


class _Clock:
    """What cells took, and so what those that are left will take."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.took: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> None:
        if "fit_seconds" in line:
            seconds = line["fit_seconds"] + line["score_seconds"]
            for place in _places(line):
                self.took[place].append(seconds)

    def left(self, cells: Sequence[Cell], processes: int) -> tuple[float | None, int]:
        total, untimed = 0.0, 0
        for cell in cells:
            place = next((place for place in _places(cell.line()) if place in self.took), None)
            if place is None:
                return None, len(cells)
            total += mean(self.took[place])
            untimed += not place
        return total / processes, untimed


def _places(line: Line) -> tuple[tuple[str, ...], ...]:
    """Return what tells how long a cell takes, the best first: epochs, say, count for more than rows."""
    set_to = json.dumps(line["settings"], sort_keys=True)
    detector, data = line["detector"], line["data"]
    return (detector, set_to, data), (detector, set_to), (detector, "", data), (detector,), ()


def environment(threads: int) -> dict[str, Any]:
    """Return versions, machine and commit, as every line says them."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads used"
    python = platform.python_version()
    return {"anograd": __version__, **versions, "python": python, "machine": machine, "commit": _commit()}


def _commit() -> str | None:
    """Return the commit that this code is of, with "-dirty" where it was changed; None outside a checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            found = subprocess.run(["git", *words], capture_output=True, text=True, check=True, cwd=here)
        except (OSError, subprocess.CalledProcessError):
            return None
        return found.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    return commit and commit + ("-dirty" if git("status", "--porcelain", "--", "..") else "")
