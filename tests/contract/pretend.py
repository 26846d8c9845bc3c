"""A second device on a machine without one: tensors that say "pretended" and keep their numbers on the CPU.

Unlike fake tensors these have values, so that a whole fit runs and its result can be compared. An operation
that mixes devices is refused as a GPU refuses it, and what makes the host wait for the device is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

DEVICE = "pretended:0"
aten = torch.ops.aten
# Copies between devices, and reading or writing by indices, which may lie on the CPU.
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten._index_put_impl_.default, aten.index_put_.default, aten.index_put.default}
ANSWERS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default}


def lstm_cell(
    x: Tensor, h: Tensor, cell: Tensor, x_bias: Tensor | None = None, h_bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    gates = x + h if x_bias is None or h_bias is None else x + h + x_bias + h_bias
    i, f, g, o = gates.chunk(4, 1)
    after = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * after.tanh(), after, torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], 1)


def lstm_cell_backward(
    dh: Tensor | None, dc: Tensor | None, cell: Tensor, after: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Tensor | None, ...]:
    i, f, g, o = gates.chunk(4, 1)
    dh, dc = (torch.zeros_like(cell) if one is None else one for one in (dh, dc))
    dc = dc + dh * o * (1 - after.tanh() ** 2)
    at = [
        dc * g * i * (1 - i),
        dc * cell * f * (1 - f),
        dc * i * (1 - g * g),
        dh * after.tanh() * o * (1 - o),
    ]
    gradient = torch.cat(at, 1)
    return gradient, dc * f, gradient.sum(0) if has_bias else None


# Kernels that torch asks an accelerator for and a CPU does not have.
OF_ACCELERATORS = {
    aten._thnn_fused_lstm_cell.default: lstm_cell,
    aten._thnn_fused_lstm_cell_backward_impl.default: lstm_cell_backward,
}


class Held(Tensor):
    """A tensor on the pretended device; `inside` has its numbers."""

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> Held:
        held = Tensor._make_wrapper_subclass(
            cls, inside.shape, strides=inside.stride(), storage_offset=inside.storage_offset(),
            dtype=inside.dtype, device=DEVICE,
        )  # fmt: skip
        held.inside = inside
        return held

    def untyped_storage(self) -> Any:
        return self.inside.untyped_storage()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @property
    def data(self) -> Any:
        return Held(self.inside)  # not a view in the eyes of autograd

    @data.setter
    def data(self, other: Held) -> None:
        self.inside = other.inside
        Tensor.data.__set__(self, other)  # type: ignore[attr-defined]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{function} was called after the pretended device had gone")


class Pretending(TorchDispatchMode):
    """Runs everything on the CPU, and keeps apart what is said to lie on the other device."""

    def __init__(self, doubles: bool) -> None:
        super().__init__()
        self.doubles = doubles
        self.waits = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        held = [one for one in tensors if isinstance(one, Held)]
        there = bool(held)
        if function is aten.copy_.default:
            there = isinstance(args[0], Held)
        elif kwargs.get("device") is not None:
            there = kwargs["device"].type == "pretended"
            kwargs["device"] = torch.device("cpu")
        mixed = held and any(one.ndim and not isinstance(one, Held) for one in tensors)
        if mixed and function not in COPIES and not (function in INDEXING and isinstance(args[0], Held)):
            told = ", ".join(f"{one.device.type} {tuple(one.shape)}" for one in tensors)
            raise AssertionError(f"{function} mixes devices: {told}")
        if held and (function in ANSWERS or (function in COPIES and not there)):
            self.waits += 1
        plain, named = tree_map(lambda one: one.inside if isinstance(one, Held) else one, (args, kwargs))
        found = OF_ACCELERATORS.get(function, function)(*plain, **named)
        if not there:
            return found
        if not self.doubles and any(
            one.dtype == torch.float64 for one in tree_leaves(found) if isinstance(one, Tensor)
        ):
            raise AssertionError(f"{function} gives float64, which the device does not have")
        itself = {id(one.inside): one for one in held}  # what was written in place
        return tree_map(
            lambda one: (
                itself[id(one)] if id(one) in itself else Held(one) if isinstance(one, Tensor) else one
            ),
            found,
        )


@cache
def register() -> None:
    """Let torch know of the device; autograd asks which devices there are before its first backward pass."""
    _setup_privateuseone_for_python_backend("pretended")


@contextmanager
def pretended(*, doubles: bool = True) -> Iterator[Pretending]:
    """Give a second device, "pretended:0", with or without double precision; count what waits for it."""
    register()
    with Pretending(doubles) as mode:
        yield mode
