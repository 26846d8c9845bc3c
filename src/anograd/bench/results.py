"""Result lines: one line of JSON a cell, appended as it is measured, so that a run that was cut off goes on.

A line says what was measured (``data``, ``protocol``, ``options``, ``detector``, ``settings``, ``seed``),
under which conditions (``regime``, ``trained_on``, ``known``, ``test_rows``, ``test_anomalies``), what came
out (``scores``: for each score that the fit gives, its measures by name), what it cost (``fit_seconds``,
``cpu_seconds``, ``score_seconds``, ``peak_mib``, ``weights``), and where (versions, ``machine``, ``commit``).
A cell that failed has ``failed``, the message, in place of ``scores``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anograd.whole import write_whole

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

Line = dict[str, Any]
KEY = ("data", "protocol", "options", "detector", "settings", "seed")


def key(line: Line) -> str:
    """Return what tells a cell from every other: the same text for the same cell."""
    return json.dumps([line[field] for field in KEY], sort_keys=True)


def read(path: Path) -> list[Line]:
    """Return the lines of a results file, the last one of each cell, in the order in which cells first occur.

    A last line that was cut off is left out, and a file that is not there has none.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError
        A line that is no result of a cell, other than a last one that was cut off.
    """
    if not path.exists():
        return []
    found: dict[str, Line] = {}
    rows = path.read_bytes().splitlines(keepends=True)
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        if not _is_result(row):
            if number == len(rows) and not row.endswith(b"\n"):
                break
            shown = row.strip()[:60].decode(errors="backslashreplace")
            raise ValueError(
                f"line {number} of {str(path)!r} is no result: {shown!r}; remove the line, and its cell is "
                "measured anew"
            )
        line = json.loads(row)
        found[key(line)] = line
    return list(found.values())


def _is_result(row: bytes) -> bool:
    """Tell whether a line says how well a cell did, or that it failed."""
    try:
        line = json.loads(row)
        return bool(key(line)) and (isinstance(line.get("scores"), dict) or "failed" in line)
    except (ValueError, KeyError, TypeError, RecursionError):  # a ValueError is no JSON, or no UTF-8
        return False


def append(path: Path, line: Line) -> None:
    """Write one more line; a last line that was cut off before it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if size := file.tell():
            file.seek(size - 1)
            if file.read() != b"\n":
                file.seek(0)
                content = file.read()
                start = content.rfind(b"\n") + 1
                if _is_result(content[start:]):  # whole but for its end
                    file.write(b"\n")
                else:
                    file.truncate(start)
        file.write((json.dumps(line) + "\n").encode())


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep a results file to one run, where the system has such locks: two would measure every cell twice.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError
        Another run holds it. A run that was killed holds nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(
                    f"another run is writing to {str(path)!r}: let it end or stop it, or give this run a "
                    "results file of its own"
                ) from error
        yield


def put_in_order(path: Path, keys: Iterable[str]) -> None:
    """Rewrite a results file in the order of the keys; cells of other keys follow as they were.

    Parameters
    ----------
    path : Path
    keys : iterable of str
        As from `key`.
    """
    lines = {key(line): line for line in read(path)}
    ordered = [lines.pop(one) for one in keys if one in lines] + list(lines.values())
    write_whole(path, "".join(json.dumps(line) + "\n" for line in ordered).encode())
