"""How each parameter's gradients are had, what a row costs, and the chunk that fits a memory budget."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch

RULE, VMAP, ROWS = "rule", "vmap", "row by row"
# Bytes that an entry takes where its gradient is built for each row: itself, and what takes room on the way
# to a weight that is made of others, as by weight norm.
FALLEN_BACK = 16
NO_RULE = "no rule for this layer"
NOT_ROWS = "its input does not have the rows first"
ELSEWHERE = "also used outside its layer"
CHANGED = "its input is changed in place afterwards"
ANOTHER = "its gradient is another one"
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Served:
    """How one parameter's per-sample gradients are computed."""

    name: str
    shape: torch.Size
    by: str  # RULE, VMAP or ROWS
    uses: tuple[tuple[str, str], ...]  # (layer, parameter name in the layer)
    products: tuple[tuple[str, str], ...]  # (layer, part of it) of each use
    layer: str  # kinds of the layers, for people
    why: str = ""  # why no rule serves it


@dataclass(frozen=True)
class Plan:
    """Which rule serves which parameter, and what a row costs. Prints itself.

    Attributes
    ----------
    served : tuple of Served
        One a chosen parameter, in order.
    calls : tuple of (str, str)
        Layer names, and which part of each layer, in the order in which they are called.
    bytes_a_row : int
        What one forward and backward pass holds for a row; 0 where the plan was made without rows.
    autocast : torch.dtype or None
        What products are computed in.
    recomputes : bool
        Whether a backward pass runs layers again, as checkpoints do.
    draws : bool
        Whether the same rows have other losses the next time, as where network or loss draw random numbers.
    graphs : set of (bool, int)
        Of the passes that the plan was found to fit: whether they were of one row, and a hash of the nodes of
        autograd's graph.
    doubts : dict of str to str
        Parameters that no rule serves because of what rows went through, and why.
    rows : int
        How many rows that differ it was made with.
    """

    served: tuple[Served, ...]
    calls: tuple[tuple[str, str], ...]
    bytes_a_row: int
    autocast: torch.dtype | None = None
    recomputes: bool = False
    draws: bool = False
    graphs: set[tuple[bool, int]] = field(default_factory=set, compare=False)
    doubts: dict[str, str] = field(default_factory=dict, compare=False)
    rows: int = 0

    def by(self, *ways: str) -> tuple[str, ...]:
        """Return the names of the parameters served in any of these ways."""
        return tuple(one.name for one in self.served if one.by in ways)

    def chunk(self, memory: str | int) -> int:
        """Return how many rows go through at once within this much memory, at least 1."""
        fallen_back = sum(one.shape.numel() for one in self.served if one.by != RULE)
        return max(1, parse_memory(memory) // max(1, self.bytes_a_row + FALLEN_BACK * fallen_back))

    def __str__(self) -> str:
        rows = [("parameter", "shape", "floats a row", "layer", "served by")]
        for one in self.served:
            by = one.by if not one.why else f"{one.by} ({one.why})"
            rows.append((one.name, "x".join(map(str, one.shape)), f"{one.shape.numel():,}", one.layer, by))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(row[i].ljust(widths[i]) for i in range(4)), row[4]]) for row in rows]
        total = sum(one.shape.numel() for one in self.served)
        lines.append(f"gradient: {total:,} floats a row when stored in full")
        if self.bytes_a_row:
            lines.append(
                f"forward and backward: {self.bytes_a_row:,} bytes a row; "
                f"{self.chunk('1GiB'):,} rows at once within memory='1GiB'"
            )
        return "\n".join(lines)


def parse_memory(memory: str | int) -> int:
    """Return a memory budget in bytes, from bytes or a text such as "512MiB"; "512MB" is the same."""
    if isinstance(memory, int) and not isinstance(memory, bool) and memory > 0:
        return memory
    matched = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", str(memory).lower())
    if matched is None or float(matched[1]) <= 0:
        raise ValueError(f"memory={memory!r} is no amount of memory: write it like memory='1GiB' or in bytes")
    return int(float(matched[1]) * UNITS[matched[2]])
