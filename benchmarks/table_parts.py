"""What all generated tables are made with: the lines that count, Markdown, and where numbers come from."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import record
from anograd.bench import table

Line = dict[str, Any]


def latest(name: str, key: Sequence[str]) -> list[Line]:
    """Return the last line for each key, in the order in which the keys first occur."""
    found: dict[tuple[Any, ...], Line] = {}
    for line in record.read(name):
        found[tuple(line[field] for field in key)] = line
    return list(found.values())


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table, whatever its cells are."""
    return table.markdown(head, ([str(cell) for cell in row] for row in rows))


def origin(lines: Sequence[Line]) -> str:
    """Return one sentence on where the numbers come from."""
    if not lines:
        return "Not measured yet."
    fields = ("machine", "torch", "anograd", "commit")
    machine, torch, anograd, commit = (sorted({str(line[field]) for line in lines}) for field in fields)
    return (
        f"Measured on {'; '.join(machine)}; torch {', '.join(torch)}, anograd {', '.join(anograd)}, "
        f"commit {', '.join(commit)}."
    )


def spread(values: Sequence[float]) -> str:
    """Return the mean and range of values."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
