"""Upsampling and its backward, written out: a product with known numbers along each axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

aten = torch.ops.aten
Weights = NDArray[np.float64]


def nearest(positions: int, wanted: int, scale: float | None, middle: float) -> Weights:
    """Return which position each new one repeats, as weights (wanted, positions).

    Parameters
    ----------
    positions, wanted : int
        Along one axis, before and after.
    scale : float or None
        As the layer was given it, if it was.
    middle : float
        Where in a new position it is looked up: 0, or 0.5 for "nearest-exact".
    """
    step = np.float32(1 / scale if scale else positions / wanted)  # as torch has it, whatever the rows are
    read = np.floor((np.arange(wanted, dtype=np.float32) + np.float32(middle)) * step).astype(np.int64)
    return np.asarray(np.eye(positions)[read.clip(max=positions - 1)])


def linear(positions: int, wanted: int, scale: float | None, align: bool) -> Weights:
    """Return by how much each new position reads both that it lies between, as weights (wanted, positions).

    Parameters
    ----------
    positions, wanted : int
    scale : float or None
        All as for `nearest`.
    align : bool
        Whether the first and the last positions stay where they are.
    """
    if align:
        place = np.arange(wanted) * ((positions - 1) / (wanted - 1) if wanted > 1 else 0.0)
    else:
        place = ((np.arange(wanted) + 0.5) * (1 / scale if scale else positions / wanted) - 0.5).clip(min=0)
    low = np.floor(place).astype(np.int64).clip(max=positions - 1)
    share = (place - low)[:, None]
    every = np.eye(positions)
    return np.asarray((1 - share) * every[low] + share * every[(low + 1).clip(max=positions - 1)])


def _weights(
    kind: str, before: Sequence[int], after: Sequence[int], options: Sequence[Any]
) -> Iterator[Weights]:
    scales = options[-len(after) :] if options[-len(after) :] else (None,) * len(after)
    for positions, wanted, scale in zip(before[2:], after, scales, strict=True):
        if kind == "linear":
            yield linear(positions, wanted, scale, options[0])
        else:
            yield nearest(positions, wanted, scale, 0.5 if kind == "exact" else 0.0)


def _forward(kind: str, x: Tensor, after: Sequence[int], *options: Any) -> Tensor:
    for axis, one in enumerate(_weights(kind, x.shape, after, options), start=2):
        x = (x.movedim(axis, -1) @ torch.from_numpy(one.T).to(x)).movedim(-1, axis)
    return x


def _backward(kind: str, d: Tensor, after: Sequence[int], before: Sequence[int], *options: Any) -> Tensor:
    for axis, one in enumerate(_weights(kind, before, after, options), start=2):
        d = (d.movedim(axis, -1) @ torch.from_numpy(one).to(d)).movedim(-1, axis)
    return d


NAMES = {
    "nearest": ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
    "exact": ("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d"),
    "linear": ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"),
}
RESIZING: dict[Any, Callable[..., Any]] = {
    getattr(aten, name + way).default: partial(function, kind)
    for kind, names in NAMES.items()
    for name in names
    for way, function in (("", _forward), ("_backward", _backward))
}
