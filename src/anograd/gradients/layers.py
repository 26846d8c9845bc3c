"""The rules: which factors the gradient of each kind of layer has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from anograd.gradients.rules import Direct, Factors, Lookup, Outer, rule

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MOST_WINDOWS = 2**18  # floats of a row's windows: more leave the cache; measured on a CPU
Convolve = Callable[..., Tensor]
Reading = Callable[[Tensor], Tensor]
CONVOLVE: dict[int, Convolve] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
KERNEL_GRADIENT: dict[int, Convolve] = {1: conv1d_weight, 2: conv2d_weight, 3: conv3d_weight}
AT_ONCE = 16  # rows in a convolution of their own groups; with more of them its kernels lose their speed
NORMALISED = 2**17  # floats that are normalised anew at once: more leave the cache; measured on a CPU


@dataclass(frozen=True)
class LinearColumns:
    """The input of a linear layer, (n, t, c)."""

    a: Tensor

    def dense(self) -> Tensor:
        return self.a.transpose(1, 2).unsqueeze(1)

    def windows(self) -> Tensor:
        return self.a.unsqueeze(1)

    def outer(self, left: Tensor) -> Tensor:
        # bmm on three axes: matmul on four takes a fifth longer.
        return torch.bmm(left.squeeze(1), self.a)

    def forward(self, weight: Tensor, rows: int) -> Tensor:
        return F.linear(self.a, weight).transpose(1, 2).unsqueeze(1)

    def inner(self, left: Tensor, weight: Tensor) -> Tensor:
        d = left.squeeze(1).transpose(1, 2)
        # The product is taken on the side where it is narrower.
        sides = (
            (F.linear(self.a, weight), d)
            if len(weight) <= self.width()
            else (F.linear(d, weight.t()), self.a)
        )
        return (sides[0] * sides[1]).flatten(1).sum(1)

    def squared(self) -> LinearColumns:
        return LinearColumns(self.a.square())

    def width(self) -> int:
        return self.a.shape[2]

    def windows_floats_a_row(self) -> int:
        return 0

    def outer_floats_a_row(self) -> int:
        return 0

    def rows(self, block: slice | Tensor) -> LinearColumns:
        return LinearColumns(self.a[block])

    def double(self) -> LinearColumns:
        return LinearColumns(self.a.double())


@dataclass(frozen=True)
class ConvolutionColumns:
    """The windows of a convolution's input (n, channels, *size), unfolded only when asked for."""

    a: Tensor
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    positions: tuple[int, ...]  # windows kept along each axis

    def width(self) -> int:
        return self.a.shape[1] // self.groups * math.prod(self.kernel)

    def windows_floats_a_row(self) -> int:
        return self.groups * self.width() * math.prod(self.positions)

    def outer_floats_a_row(self) -> int:
        return 0 if self._convolves() else self.windows_floats_a_row()

    def _convolves(self) -> bool:
        """Tell whether `outer` is a convolution, which cannot say that some windows do not count."""
        return self.windows_floats_a_row() > MOST_WINDOWS and self._grid() == self.positions

    def dense(self) -> Tensor:
        n, channels = self.a.shape[:2]
        axes, own = len(self.kernel), channels // self.groups
        windows = self.windows().transpose(2, 3).reshape(n, self.groups, *self.kernel, own, -1)
        return windows.movedim(2 + axes, 2).reshape(n, self.groups, self.width(), -1)

    def windows(self) -> Tensor:
        return self._windows

    @cached_property
    def _windows(self) -> Tensor:
        """The windows, (n, k, t, c), each read kernel entry by kernel entry, channels innermost.

        In that order what is copied lies side by side, which takes a third of the time. They are copied once
        for all that is read off a block of rows.
        """
        n, channels, axes = *self.a.shape[:2], len(self.kernel)
        sizes = n, self.groups, math.prod(self.positions), self.width()
        a = self.a.movedim(1, -1)
        if any(self.padding):
            a = F.pad(a, [0, 0, *(side for width in reversed(self.padding) for side in (width, width))])
        a = a.contiguous()
        steps = zip(self.kernel, self.stride, self.dilation, self.positions, strict=True)
        for axis, (size, step, spread, kept) in enumerate(steps):
            a = a.unfold(1 + axis, spread * (size - 1) + 1, step)[..., ::spread].narrow(1 + axis, 0, kept)
        # Now (n, *positions, channels, *kernel).
        positions, kernel = range(1, 1 + axes), range(2 + axes, 2 + 2 * axes)
        if channels == 1:  # only positions lie side by side
            copied = a.permute(0, 1 + axes, *kernel, *positions).reshape(n, 1, sizes[3], sizes[2])
            return copied.contiguous().transpose(2, 3)
        a = a.reshape(*a.shape[: 1 + axes], self.groups, channels // self.groups, *self.kernel)
        copied = a.permute(0, 1 + axes, *positions, *(i + 1 for i in kernel), 2 + axes).reshape(sizes)
        return copied.contiguous()  # windows that overlap along one axis are a view, row by row to multiply

    def outer(self, left: Tensor) -> Tensor:
        if not self._convolves():
            return self.by_windows(left)
        parts = [
            _kernel_gradients(self.rows(slice(i, i + AT_ONCE)), left[i : i + AT_ONCE])
            for i in range(0, len(left), AT_ONCE)
        ]
        return torch.cat(parts)

    def by_windows(self, left: Tensor) -> Tensor:
        """Return what `outer` does, as one product a row and group."""
        product = torch.bmm(left.flatten(0, 1), self.windows().flatten(0, 1))
        return product.reshape(len(left), -1, *self.kernel, self.a.shape[1] // self.groups).movedim(-1, 2)

    def _grid(self) -> tuple[int, ...]:
        """Return how many windows there are along each axis."""
        return tuple(
            (size + 2 * pad - spread * (kernel - 1) - 1) // step + 1
            for size, pad, spread, kernel, step in zip(
                self.a.shape[2:], self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )

    def forward(self, weight: Tensor, rows: int) -> Tensor:
        weight = weight.reshape(self.groups * rows, -1, *self.kernel)
        if self.groups == 1 and "_windows" in vars(self):  # one product with what is there is faster
            return F.linear(self._windows, weight.movedim(1, -1).flatten(1)).transpose(2, 3)
        product = CONVOLVE[len(self.kernel)](
            self.a, weight, None, self.stride, self.padding, self.dilation, self.groups
        )
        return self._keep(product).reshape(len(self.a), self.groups, rows, -1)

    def inner(self, left: Tensor, weight: Tensor) -> Tensor:
        return (self.forward(weight, left.shape[2]) * left).flatten(1).sum(1)

    def squared(self) -> ConvolutionColumns:
        return replace(self, a=self.a.square())

    def _keep(self, grid: Tensor) -> Tensor:
        for axis, length in enumerate(self.positions):
            grid = grid.narrow(2 + axis, 0, length)
        return grid

    def rows(self, block: slice | Tensor) -> ConvolutionColumns:
        return replace(self, a=self.a[block])

    def double(self) -> ConvolutionColumns:
        return replace(self, a=self.a.double())


def _kernel_gradients(columns: ConvolutionColumns, left: Tensor) -> Tensor:
    """Return the kernel's gradients of some rows: one convolution in which each row is its own group.

    Where windows are many, this is faster on a CPU than to copy them and multiply.
    """
    n, a = len(left), columns.a
    inputs = a.reshape(1, n * a.shape[1], *a.shape[2:])
    outputs = left.reshape(1, -1, *columns.positions)
    size = (outputs.shape[1], a.shape[1] // columns.groups, *columns.kernel)
    gradient = KERNEL_GRADIENT[len(columns.kernel)](
        inputs, size, outputs, columns.stride, columns.padding, columns.dilation, n * columns.groups
    )
    return gradient.reshape(n, -1, *size[1:])


@rule(nn.Linear, parameter="weight")
def linear_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t a_t'."""
    a, d = (side.reshape(len(side), -1, side.shape[-1]) for side in (a, d))
    return Outer(d.transpose(1, 2).unsqueeze(1), LinearColumns(a))


@rule(nn.Linear, parameter="bias")
def linear_bias(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t."""
    return Direct(d if d.ndim == 2 else d.reshape(len(d), -1, d.shape[-1]).sum(1))


@rule(*CONVOLUTIONS, parameter="weight")
def convolution_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t (window t of a)'."""
    layer = cast(nn.Conv2d, layer)
    padding = layer.padding
    if layer.padding_mode != "zeros" or isinstance(padding, str):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        a = F.pad(a, layer._reversed_padding_repeated_twice, mode=mode)
        padding = (0,) * len(layer.kernel_size)
    return _correlation(layer, windows_of=a, against=d, padding=padding)


@rule(*TRANSPOSED, parameter="weight")
def transposed_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of a_t (window t of d)': a convolution's, with input and gradient exchanged."""
    layer = cast(nn.ConvTranspose2d, layer)
    padding = cast("tuple[int, ...]", layer.padding)
    return _correlation(layer, windows_of=d, against=a, padding=padding)


def _correlation(
    layer: nn.Conv2d | nn.ConvTranspose2d, windows_of: Tensor, against: Tensor, padding: tuple[int, ...]
) -> Outer:
    n, rows = against.shape[:2]
    left = against.reshape(n, layer.groups, rows // layer.groups, -1)
    return Outer(
        left,
        ConvolutionColumns(
            windows_of,
            layer.kernel_size,
            layer.stride,
            padding,
            layer.dilation,
            layer.groups,
            tuple(against.shape[2:]),
        ),
    )


@rule(*CONVOLUTIONS, *TRANSPOSED, *BATCH_NORMS, nn.GroupNorm, parameter="bias")
def channel_bias(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t, channel by channel."""
    return Direct(_channels(d))


def _channels(entries: Tensor) -> Tensor:
    return entries.flatten(2).sum(2) if entries.ndim > 2 else entries


def _scales(a: Tensor, d: Tensor, normalise: Reading, summed: Reading) -> Factors:
    """G = sum over positions of d_t times the normalised input, a few rows at a time."""
    rows = max(1, NORMALISED // max(1, a[0].numel()))
    if len(a) <= rows or type(a) is not Tensor:  # such as what stands in while a graph is traced
        return Direct(summed(d * normalise(a)))
    sides = zip(torch.split(a, rows), torch.split(d, rows), strict=True)
    return Direct(torch.cat([summed(d * normalise(a)) for a, d in sides]))


@rule(*BATCH_NORMS, parameter="weight")
def batch_norm_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t times the input as the frozen statistics normalise it."""
    layer = cast(nn.BatchNorm2d, layer)
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None  # in evaluation mode without them, rows would influence each other: refused
    assert variance is not None
    mean, variance = mean.to(a.dtype), variance.to(a.dtype)
    return _scales(a, d, lambda a: F.batch_norm(a, mean, variance, eps=layer.eps), _channels)


@rule(nn.GroupNorm, parameter="weight")
def group_norm_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t times the normalised input."""
    layer = cast(nn.GroupNorm, layer)
    return _scales(a, d, lambda a: F.group_norm(a, layer.num_groups, eps=layer.eps), _channels)


@rule(nn.LayerNorm, parameter="weight")
def layer_norm_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t times the normalised input."""
    shape, eps = cast(nn.LayerNorm, layer).normalized_shape, cast(nn.LayerNorm, layer).eps
    return _scales(a, d, lambda a: F.layer_norm(a, shape, eps=eps), lambda one: _positions(one, shape))


@rule(nn.LayerNorm, parameter="bias")
def layer_norm_bias(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t."""
    return Direct(_positions(d, cast(nn.LayerNorm, layer).normalized_shape))


def _positions(entries: Tensor, shape: Sequence[int]) -> Tensor:
    return entries.reshape(len(entries), -1, *shape).sum(1)


def _plain_lookup(layer: nn.Module) -> bool:
    """Tell whether an embedding is only a look-up: two options change the table or the gradient."""
    layer = cast(nn.Embedding, layer)
    return layer.max_norm is None and not layer.scale_grad_by_freq


@rule(nn.Embedding, parameter="weight", when=_plain_lookup)
def embedding_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of onehot(a_t) d_t', nothing at the padding index."""
    layer = cast(nn.Embedding, layer)
    index = a.reshape(len(a), -1).long()
    d = d.reshape(len(d), -1, layer.embedding_dim)
    if layer.padding_idx is not None:
        d = d * (index != layer.padding_idx).unsqueeze(-1)
    return Lookup(index, d, layer.num_embeddings)
