"""What a score is made of: the loss, and what it reads of each layer's gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anograd.gradients import Sketch
from anograd.target import Target

LOSS = "loss"


@dataclass(frozen=True)
class Parts:
    """A row's score, taken apart.

    Parameters
    ----------
    read : callable
        From encoded rows (n, ...) to what the score reads of them, (n, k).
    score : callable
        From what was read to scores, (n,).
    groups : torch.Tensor of int64, (k,)
        Which of these belong together.
    names : tuple of str
        Of the groups.
    """

    read: Callable[[Tensor], Tensor]
    score: Callable[[Tensor], Tensor]
    groups: Tensor
    names: tuple[str, ...]


def of_layers(target: Target, kind: str, sketch: Sketch | None, columns: int) -> tuple[Tensor, list[str]]:
    """Return the layer that each of a representation's columns belongs to, and the layers' names.

    Parameters
    ----------
    target : Target
    kind : {"norm", "cosine", "sketch", "full"}
    sketch : Sketch or None
    columns : int
        Where they are others than the representation has, they count as one group, "gradient".
    """
    shapes = list(target.shapes().values())
    sizes = {
        "norm": [1] * len(shapes),
        "cosine": [1] * len(shapes) * max(1, columns // len(shapes)),
        "sketch": [math.prod(sketch.sides(shape)) for shape in shapes] if sketch is not None else [],
        "full": [shape.numel() for shape in shapes],
    }[kind]
    if sum(sizes) != columns:
        return torch.zeros(columns, dtype=torch.int64), ["gradient"]
    layer = torch.arange(len(sizes)) % len(shapes)
    return layer.repeat_interleave(torch.tensor(sizes)), list(target.layers)


def of_checkpoints(
    target: Target, sketch: Sketch | None, shape: Mapping[str, int]
) -> tuple[Tensor, tuple[str, ...]]:
    """Return which of R2-AD2's entries belong together, and the names: each layer's at each checkpoint.

    Parameters
    ----------
    target : Target
        Any of the checkpoints.
    sketch : Sketch or None
    shape : mapping
        How many "checkpoints" there are, "entries" of each, and "columns" of the row itself.
    """
    kind = "full" if sketch is None else "sketch"
    numbers, names = of_layers(target, kind, sketch, shape["entries"])
    groups = [
        (numbers, [f"checkpoint {moment}, {name}" for name in names])
        for moment in range(1, shape["checkpoints"] + 1)
    ]
    if shape["columns"]:
        groups.append((torch.zeros(shape["columns"], dtype=torch.int64), ["columns"]))
    return joined(groups)


def joined(groups: Sequence[tuple[Tensor, list[str]]]) -> tuple[Tensor, tuple[str, ...]]:
    """Return groups of columns side by side, numbered through, and all their names."""
    numbers: list[Tensor] = []
    names: list[str] = []
    for numbered, named in groups:
        numbers.append(numbered + len(names))
        names += named
    return torch.cat(numbers), tuple(names)
