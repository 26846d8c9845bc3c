"""Operations of a recorded backward pass that ONNX has none for, written out in ones that it has.

In double precision onnxruntime has no convolution on a CPU: there it becomes a gathering of windows and a
matrix product. Which position a window reads is known beforehand, so that all index arithmetic ends up in
constants.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anograd.onnx.resizing import RESIZING

aten = torch.ops.aten
Index = NDArray[np.int64]


def taps(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    windows: Sequence[int],
    spread: Sequence[int],
) -> Index:
    """Return the position that each kernel entry reads in each window, (entries, windows), axes flattened.

    One past the last position stands for the padding, and for what `spread` puts between positions.

    Parameters
    ----------
    size : sequence of int
        Positions along each axis.
    kernel, stride, padding, dilation : sequence of int
        Of the convolution along each axis.
    windows : sequence of int
        Along each axis.
    spread : sequence of int
        The distance at which positions lie; more than 1 in a transposed convolution.
    """
    outside = math.prod(size)
    found = np.zeros((1, 1), dtype=np.int64)
    for positions, entries, step, margin, gap, count, apart in zip(
        size, kernel, stride, padding, dilation, windows, spread, strict=True
    ):
        place = np.arange(entries)[:, None] * gap + np.arange(count)[None] * step - margin
        inside = (place % apart == 0) & (place >= 0) & (place // apart < positions)
        along = np.where(inside, place // apart, -1)[None, :, None, :]
        joined = np.where((found[:, None, :, None] < 0) | (along < 0), -1, 0)
        joined = np.where(joined < 0, -1, found[:, None, :, None] * positions + along)
        found = joined.reshape(len(found) * entries, -1)
    return np.where(found < 0, outside, found)


def gather(x: Tensor, index: Index, fill: float) -> Tensor:
    """Return what an index (i, j) reads of each channel, (n, i, j, channels), of x (n, channels, *size).

    Channels come last, so that each reading is of numbers that lie side by side.

    Parameters
    ----------
    x : torch.Tensor
    index : ndarray of int64
        Of flattened positions; one past the last reads `fill`.
    fill : float
    """
    flat = x.flatten(2).transpose(1, 2)
    if (index == flat.shape[1]).any():
        flat = F.pad(flat, (0, 0, 0, 1), value=fill)
    read = flat.index_select(1, torch.from_numpy(index.ravel()))
    return read.reshape(len(x), *index.shape, -1)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    if x.dtype != torch.float64:
        return NotImplemented
    axes = x.ndim - 2
    size, kernel = x.shape[2:], weight.shape[2:]
    stride, padding, dilation = (_each(one, axes) for one in (stride, padding, dilation))
    reach = [gap * (entries - 1) for gap, entries in zip(dilation, kernel, strict=True)]
    if transposed:
        spread, step = stride, [1] * axes
        margin = [far - pad for far, pad in zip(reach, padding, strict=True)]
        windows = [
            (positions - 1) * apart - 2 * pad + far + extra + 1
            for positions, apart, pad, far, extra in zip(
                size, stride, padding, reach, _each(output_padding, axes), strict=True
            )
        ]
        # (in, out / groups, *kernel) -> (groups, kernel, in / groups, out / groups), the kernel reversed.
        turned = weight.flip(list(range(2, 2 + axes))).flatten(2)
        matrix = turned.reshape(groups, -1, *turned.shape[1:]).permute(0, 3, 1, 2)
    else:
        spread, step, margin = [1] * axes, stride, padding
        windows = [
            (positions + 2 * pad - far - 1) // by + 1
            for positions, pad, far, by in zip(size, padding, reach, stride, strict=True)
        ]
        turned = weight.flatten(2)
        matrix = turned.reshape(groups, -1, *turned.shape[1:]).permute(0, 3, 2, 1)
    index = taps(size, kernel, step, margin, dilation, windows, spread).T
    read = gather(x, index, 0.0).reshape(len(x), *index.shape, groups, -1).permute(3, 0, 1, 2, 4)
    product = torch.bmm(read.flatten(3).flatten(1, 2), matrix.flatten(1, 2))
    # (groups, n * windows, out / groups) -> (n, out, *windows)
    product = product.reshape(groups, len(x), *index.shape[:1], -1).permute(1, 0, 3, 2)
    product = product.reshape(len(x), -1, *windows)
    return product if bias is None else product + bias.reshape(-1, *(1,) * axes)


def _convolution_backward(
    d: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Return the gradient at the input, a convolution the other way round; the rest is for the rules."""
    if wanted[1] or wanted[2]:
        raise NotImplementedError("a kernel's gradient is asked for, summed over rows")
    axes = x.ndim - 2
    stride, padding, dilation = (_each(one, axes) for one in (stride, padding, dilation))
    extra = [0] * axes
    if not transposed:
        extra = [
            positions - ((windows - 1) * by - 2 * pad + gap * (entries - 1) + 1)
            for positions, windows, by, pad, gap, entries in zip(
                x.shape[2:], d.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True
            )
        ]
    found = aten.convolution(d, weight, None, stride, padding, dilation, not transposed, extra, groups)
    for axis, positions in enumerate(x.shape[2:], 2):  # an output padding as wide as the stride makes more
        found = found.narrow(axis, 0, positions)
    return found, None, None


def _pool_windows(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[Index, list[int]]:
    """Return what each window of a pooling reads, (entries, windows), and the windows along each axis."""
    kernel, padding, dilation = (_each(one, 2) for one in (kernel, padding, dilation))
    stride = _each(stride, 2) if len(stride) else kernel
    windows = []
    for positions, entries, by, pad, gap in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        room = positions + 2 * pad - gap * (entries - 1) - 1
        count = (-(-room // by) if ceil_mode else room // by) + 1
        windows.append(count - 1 if ceil_mode and (count - 1) * by >= positions + pad else count)
    return taps(x.shape[2:], kernel, stride, padding, dilation, windows, (1, 1)), windows


def _max_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    index, windows = _pool_windows(x, kernel, stride, padding, dilation, ceil_mode)
    highest = gather(x, index, -math.inf).amax(1).transpose(1, 2)
    # Nobody reads where the highest were: the backward pass looks for them again.
    return highest.reshape(*x.shape[:2], *windows), x.new_zeros((), dtype=torch.int64)


def _max_pool_backward(
    d: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    places: Tensor,
) -> Tensor:
    """Return the gradient at the input: of each window it goes to the first of the highest."""
    index, _ = _pool_windows(x, kernel, stride, padding, dilation, ceil_mode)
    first = gather(x, index, -math.inf).argmax(1, keepdim=True)  # (n, 1, windows, channels)
    chosen = first == torch.arange(len(index)).reshape(-1, 1, 1)
    spread = torch.where(chosen, d.flatten(2).transpose(1, 2).unsqueeze(1), 0.0)
    read = gather(spread.flatten(1, 2).transpose(1, 2), _readers(index, x.shape[2:]), 0.0)
    return read.sum(1).transpose(1, 2).reshape(x.shape)


def _avg_pool(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Any:
    if ceil_mode or divisor or not (count_padding or max(padding) == 0):
        return NotImplemented
    index, windows = _pool_windows(x, kernel, stride, padding, (1, 1), ceil_mode)
    return gather(x, index, 0.0).mean(1).transpose(1, 2).reshape(*x.shape[:2], *windows)


def _avg_pool_backward(
    d: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    *options: Any,
) -> Tensor:
    """Return the gradient at the input: of each window all entries get the same share."""
    index, _ = _pool_windows(x, kernel, stride, padding, (1, 1), False)
    shares = (d / len(index)).flatten(2).repeat(1, 1, len(index))
    return gather(shares, _readers(index, x.shape[2:]), 0.0).sum(1).transpose(1, 2).reshape(x.shape)


def _readers(index: Index, size: Sequence[int]) -> Index:
    """Return all flattened entries of an index that read each position, (most readers, positions)."""
    readers: list[list[int]] = [[] for _ in range(math.prod(size))]
    for reader, position in enumerate(index.ravel().tolist()):
        if position < len(readers):
            readers[position].append(reader)
    rows = itertools.zip_longest(*readers, fillvalue=index.size)
    return np.array(list(rows), dtype=np.int64).reshape(-1, len(readers))


def _slice_backward(d: Tensor, sizes: Sequence[int], axis: int, start: int, end: int, step: int) -> Any:
    if step != 1:
        return NotImplemented
    after = sizes[axis] - start - d.shape[axis]
    return F.pad(d, (0, 0) * (d.ndim - 1 - axis % d.ndim) + (start, after))


def _searchsorted(ordered: Tensor, values: Tensor, **options: Any) -> Tensor:
    return (ordered < values.unsqueeze(-1)).sum(-1)


def _copysign(size: Tensor, sign: Tensor) -> Tensor:
    return torch.where(sign < 0, -size.abs(), size.abs())


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, channels: int, places: int, groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return x normalised, and each group's mean and one over its spread; torch's own reads by strides."""
    apart = x.reshape(n, groups, channels // groups * places)
    mean = apart.mean(2)
    centred = apart - mean.unsqueeze(2)
    scale = (centred.square().mean(2) + eps).rsqrt()
    normed = (centred * scale.unsqueeze(2)).reshape(x.shape)
    shape = (1, channels, *(1,) * (x.ndim - 2))
    normed = normed if weight is None else normed * weight.reshape(shape)
    return normed if bias is None else normed + bias.reshape(shape), mean, scale


def _each(value: Sequence[int], axes: int) -> list[int]:
    """Return one number for each axis, where one may stand for all."""
    return list(value) * (axes // len(value))


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    aten.slice_backward.default: _slice_backward,
    aten.avg_pool2d.default: _avg_pool,
    aten.avg_pool2d_backward.default: _avg_pool_backward,
    aten.searchsorted.Tensor: _searchsorted,
    aten.copysign.Tensor: _copysign,
    aten.native_group_norm.default: _group_norm,
    **RESIZING,
}
