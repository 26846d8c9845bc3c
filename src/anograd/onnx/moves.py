"""What operations that move numbers about, and leave them as they are, are in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from anograd.onnx.nodes import operand, translates
from anograd.onnx.writer import Value, Writer, is_of_rows


@translates("alias", "detach", "clone", "lift_fresh_copy", "_to_copy", "convert_element_type", "view_of")
def _same(writer: Writer, like: Tensor, x: Value, *args: Any, **options: Any) -> str:
    return writer.cast(x, like.dtype).name


@translates("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "flatten")
def reshaped(writer: Writer, like: Tensor, x: Value, *args: Any) -> str:
    """Add a reshaping to the shape of `like`, and return the name of the result."""
    shape = [-1 if is_of_rows(size) else size for size in like.shape]
    if shape.count(-1) > 1:
        return writer.add("Reshape", x.name, writer.sizes(like.shape))
    return writer.add("Reshape", x.name, writer.constant(np.array(shape, dtype=np.int64)))


@translates("expand")
def _expand(writer: Writer, like: Tensor, x: Value, *args: Any, **options: Any) -> str:
    # Where the rows are there already a size of 1 leaves them as they are.
    before = (1,) * (like.ndim - len(x.shape)) + x.shape
    sizes = [1 if is_of_rows(old) else new for old, new in zip(before, like.shape, strict=True)]
    return writer.add("Expand", x.name, writer.sizes(sizes))


@translates("prims::broadcast_in_dim")
def _broadcast(writer: Writer, like: Tensor, x: Value, shape: Sequence[int], axes: Sequence[int]) -> str:
    places = [x.shape[list(axes).index(axis)] if axis in axes else 1 for axis in range(len(shape))]
    placed = torch.empty(places, device="meta")
    sized: str = _expand(writer, like, Value(reshaped(writer, placed, x), placed))
    return sized


@translates("repeat")
def _repeat(writer: Writer, like: Tensor, x: Value, times: Sequence[int]) -> str:
    shape = (1,) * (len(times) - len(x.shape)) + x.shape
    inner = reshaped(writer, torch.empty(shape, device="meta"), x)
    return writer.add("Tile", inner, writer.sizes(times))


@translates("permute")
def _permute(writer: Writer, like: Tensor, x: Value, order: Sequence[int]) -> str:
    turned = writer.add("Transpose", x.name, perm=[axis % len(order) for axis in order])
    if like.dtype != torch.float64:
        return turned
    # Before 1.26 onnxruntime takes a transposition and the product that follows for one operation, which it
    # does not have in double precision: something has to stand between them.
    return writer.add("Reshape", turned, writer.sizes(like.shape))


@translates("constant_pad_nd")
def _pad(writer: Writer, like: Tensor, x: Value, pads: Sequence[int], fill: float = 0) -> str:
    # From the last axis to the first, (before, after) each -> all before, then all after.
    free = [0] * (len(x.shape) - len(pads) // 2)
    order = [*free, *pads[::2][::-1], *free, *pads[1::2][::-1]]
    sizes = writer.constant(np.array(order, dtype=np.int64))
    return writer.add("Pad", x.name, sizes, operand(writer, fill, like.dtype))


@translates("slice")
def _slice(
    writer: Writer, like: Tensor, x: Value, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> str:
    size = x.shape[axis]
    if like.shape[axis] == size:
        return x.name
    bounds = (start or 0, size if end is None else min(end, size), axis, step)
    return writer.add("Slice", x.name, *(writer.constant(np.array([one], dtype=np.int64)) for one in bounds))


@translates("select")
def _select(writer: Writer, like: Tensor, x: Value, axis: int, place: int) -> str:
    return writer.add("Gather", x.name, writer.constant(np.array(place, dtype=np.int64)), axis=axis)


@translates("rev", "flip")
def _reversed(writer: Writer, like: Tensor, x: Value, axes: Sequence[int]) -> str:
    name = x.name
    for axis in axes:
        backwards = np.arange(x.shape[axis])[::-1].copy()
        name = writer.add("Gather", name, writer.constant(backwards), axis=axis)
    return name


@translates("index_select")
def _index_select(writer: Writer, like: Tensor, x: Value, axis: int, index: Value) -> str:
    return writer.add("Gather", x.name, index.name, axis=axis)


@translates("index")
def _index(writer: Writer, like: Tensor, x: Value, indices: Sequence[Value | None]) -> str:
    axes = [axis for axis, one in enumerate(indices) if one is not None]
    chosen = [one for one in indices if one is not None]
    if len(axes) == 1:
        return writer.add("Gather", x.name, chosen[0].name, axis=axes[0])
    if axes != list(range(axes[0], axes[-1] + 1)) or any(isinstance(one.like, FakeTensor) for one in chosen):
        raise ValueError("the network picks entries along several axes at once by what it computes itself")
    place = torch.zeros((), dtype=torch.int64)
    for axis, one in zip(axes, chosen, strict=True):
        place = place * x.shape[axis] + one.like % x.shape[axis]
    joined = x.like.flatten(axes[0], axes[-1])
    flat = reshaped(writer, joined, x)
    return writer.add("Gather", flat, writer.constant(place), axis=axes[0])


@translates("gather")
def _gather(writer: Writer, like: Tensor, x: Value, axis: int, index: Value, **options: Any) -> str:
    return writer.add("GatherElements", x.name, index.name, axis=axis)


@translates("scatter")
def _scatter(writer: Writer, like: Tensor, x: Value, axis: int, index: Value, given: Any) -> str:
    if not isinstance(given, Value):
        one = operand(writer, given, like.dtype)
        given = Value(writer.add("Expand", one, writer.sizes(index.shape)), like)
    return writer.add("ScatterElements", x.name, index.name, given.name, axis=axis)


@translates("index_add")
def _index_add(writer: Writer, like: Tensor, x: Value, axis: int, index: Value, given: Value) -> str:
    places = np.ones(len(x.shape), dtype=np.int64)
    places[axis] = -1
    along = writer.add("Reshape", index.name, writer.constant(places))
    wide = writer.add("Expand", along, writer.sizes(given.shape))
    return writer.add("ScatterElements", x.name, wide, given.name, axis=axis, reduction="add")


@translates("cat")
def _cat(writer: Writer, like: Tensor, parts: Sequence[Value], axis: int = 0) -> str:
    return writer.add("Concat", *(writer.cast(one, like.dtype).name for one in parts), axis=axis)


@translates("split_with_sizes")
def _split(
    writer: Writer, like: Sequence[Tensor], x: Value, sizes: Sequence[int], axis: int = 0
) -> tuple[str, ...]:
    names = [writer.name() for _ in sizes]
    writer.add("Split", x.name, writer.constant(np.array(sizes, dtype=np.int64)), outputs=names, axis=axis)
    return tuple(names)
