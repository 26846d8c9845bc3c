"""Result lines: what was measured, with versions, machine and commit; a run that was cut off goes on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import sklearn
import torch

from anograd import __version__

RESULTS = Path(__file__).parent / "results"


def _git(*words: str) -> str:
    found = subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=RESULTS.parent)
    return found.stdout.strip()


# Taken when the run begins: what is edited meanwhile is not what runs.
CHANGED = _git("diff", "HEAD", "--", "../src", ".", ":!results")
COMMIT = _git("rev-parse", "--short", "HEAD") + ("-dirty" if CHANGED else "")


def environment(threads: int | None = None) -> dict[str, Any]:
    """Return versions, machine and commit; threads of other processes than this one must be told."""
    used = threads or torch.get_num_threads()
    return {
        "anograd": __version__,
        "torch": torch.__version__,
        "sklearn": sklearn.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {used} threads used",
        "commit": COMMIT,
    }


def read(name: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a result file; one that was cut off is left out."""
    path = RESULTS / f"{name}.jsonl"
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def done(name: str, key: dict[str, Any]) -> bool:
    """Tell whether a line with this key is there."""
    return any(all(line.get(field) == value for field, value in key.items()) for line in read(name))


def write(name: str, line: dict[str, Any]) -> None:
    """Append a line, with the environment it came from; its "threads", if it has them, are all processes'."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    cut_off = path.exists() and path.read_bytes()[-1:] not in (b"\n", b"")
    with path.open("a") as file:
        file.write(
            ("\n" if cut_off else "") + json.dumps({**line, **environment(line.get("threads"))}) + "\n"
        )
