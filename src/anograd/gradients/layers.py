"""The rules: which factors the gradient of each kind of layer has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from anograd.gradients.rules import Direct, Factors, Lookup, Outer, rule

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NARROW = 8  # windows along the last axis; measured on a CPU
Convolve = Callable[..., Tensor]
CONVOLVE: dict[int, Convolve] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
KERNEL_GRADIENT: dict[int, Convolve] = {1: conv1d_weight, 2: conv2d_weight, 3: conv3d_weight}
AT_ONCE = 16  # rows in a convolution of their own groups; with more of them its kernels lose their speed


@dataclass(frozen=True)
class LinearColumns:
    """The input of a linear layer, (n, t, c)."""

    a: Tensor

    def dense(self) -> Tensor:
        return self.a.transpose(1, 2).unsqueeze(1)

    def outer(self, left: Tensor) -> Tensor:
        # bmm on three axes: matmul on four takes a fifth longer.
        return torch.bmm(left.squeeze(1), self.a).flatten(1)

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

    def width(self) -> int:
        return self.a.shape[2]

    def dense_floats_a_row(self) -> int:
        return 0

    def rows(self, block: slice) -> LinearColumns:
        return LinearColumns(self.a[block])


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

    def dense_floats_a_row(self) -> int:
        return self.groups * self.width() * math.prod(self.positions)

    def dense(self) -> Tensor:
        axes = len(self.kernel)
        if axes == 2 and self.positions[-1] < NARROW:
            return self._unfold_narrow()
        windows = F.pad(self.a, [side for width in reversed(self.padding) for side in (width, width)])
        for axis, (size, step, spread) in enumerate(
            zip(self.kernel, self.stride, self.dilation, strict=True)
        ):
            windows = windows.unfold(2 + axis, spread * (size - 1) + 1, step)[..., ::spread]
        windows = self._keep(windows)
        # (n, channels, *positions, *kernel) -> (n, channels, *kernel, *positions)
        order = [0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes)]
        return windows.permute(order).reshape(len(self.a), self.groups, self.width(), -1)

    def outer(self, left: Tensor) -> Tensor:
        if self._grid() != self.positions:  # some windows do not count, which no convolution can say
            return torch.bmm(left.flatten(0, 1), self.dense().flatten(0, 1).transpose(1, 2)).reshape(
                len(left), -1
            )
        parts = [
            _kernel_gradients(self.rows(slice(i, i + AT_ONCE)), left[i : i + AT_ONCE])
            for i in range(0, len(left), AT_ONCE)
        ]
        return torch.cat(parts)

    def _grid(self) -> tuple[int, ...]:
        """Return how many windows there are along each axis."""
        return tuple(
            (size + 2 * pad - spread * (kernel - 1) - 1) // step + 1
            for size, pad, spread, kernel, step in zip(
                self.a.shape[2:], self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )

    def _unfold_narrow(self) -> Tensor:
        """Return the same by torch's own kernel, which is faster on narrow grids and slower on wide ones."""
        windows = F.unfold(self.a, self.kernel, self.dilation, self.padding, self.stride)
        kept = self._keep(windows.reshape(*windows.shape[:2], *self._grid()))
        return kept.reshape(len(self.a), self.groups, self.width(), -1)

    def forward(self, weight: Tensor, rows: int) -> Tensor:
        weight = weight.reshape(self.groups * rows, -1, *self.kernel)
        product = CONVOLVE[len(self.kernel)](
            self.a, weight, None, self.stride, self.padding, self.dilation, self.groups
        )
        return self._keep(product).reshape(len(self.a), self.groups, rows, -1)

    def inner(self, left: Tensor, weight: Tensor) -> Tensor:
        return (self.forward(weight, left.shape[2]) * left).flatten(1).sum(1)

    def _keep(self, grid: Tensor) -> Tensor:
        for axis, length in enumerate(self.positions):
            grid = grid.narrow(2 + axis, 0, length)
        return grid

    def rows(self, block: slice) -> ConvolutionColumns:
        return replace(self, a=self.a[block])


def _kernel_gradients(columns: ConvolutionColumns, left: Tensor) -> Tensor:
    """Return the kernel's gradients of some rows, (n, g): one convolution in which each row is its own group.

    Two to three times faster on a CPU than to unfold the input and multiply.
    """
    n, a = len(left), columns.a
    inputs = a.reshape(1, n * a.shape[1], *a.shape[2:])
    outputs = left.reshape(1, -1, *columns.positions)
    size = (outputs.shape[1], a.shape[1] // columns.groups, *columns.kernel)
    gradient = KERNEL_GRADIENT[len(columns.kernel)](
        inputs, size, outputs, columns.stride, columns.padding, columns.dilation, n * columns.groups
    )
    return gradient.reshape(n, -1)


@rule(nn.Linear, parameter="weight")
def linear_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t a_t'."""
    a, d = (side.reshape(len(side), -1, side.shape[-1]) for side in (a, d))
    return Outer(d.transpose(1, 2).unsqueeze(1), LinearColumns(a))


@rule(nn.Linear, parameter="bias")
def linear_bias(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t."""
    return Direct(d.reshape(len(d), -1, d.shape[-1]).sum(1))


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
    return Direct(d.flatten(2).sum(2) if d.ndim > 2 else d)


@rule(*BATCH_NORMS, parameter="weight")
def batch_norm_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t times the input as the frozen statistics normalise it."""
    layer = cast(nn.BatchNorm2d, layer)
    normalised = F.batch_norm(a, layer.running_mean, layer.running_var, eps=layer.eps)
    return channel_bias(layer, a, d * normalised)


@rule(nn.GroupNorm, parameter="weight")
def group_norm_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t times the normalised input."""
    layer = cast(nn.GroupNorm, layer)
    return channel_bias(layer, a, d * F.group_norm(a, layer.num_groups, eps=layer.eps))


@rule(nn.LayerNorm, parameter="weight")
def layer_norm_weight(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t times the normalised input."""
    layer = cast(nn.LayerNorm, layer)
    return layer_norm_bias(layer, a, d * F.layer_norm(a, layer.normalized_shape, eps=layer.eps))


@rule(nn.LayerNorm, parameter="bias")
def layer_norm_bias(layer: nn.Module, a: Tensor, d: Tensor) -> Factors:
    """G = sum over positions of d_t."""
    shape: Sequence[int] = cast(nn.LayerNorm, layer).normalized_shape
    return Direct(d.reshape(len(d), -1, *shape).sum(1))


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
