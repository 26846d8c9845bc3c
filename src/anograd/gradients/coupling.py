"""Does a row change what the network makes of another? Then no row has a gradient of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from anograd.target import untraced

Pass = Callable[[Tensor], Tensor]  # rows to losses


def refuse_batch_statistics(module: nn.Module) -> None:
    """Raise ValueError for a batch norm that keeps no statistics, before anything is run."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise ValueError(
                f"layer '{name}' ({type(layer).__name__}) keeps no running statistics, so each row changes "
                f"the others' output and no row has a gradient of its own: build it with "
                f"track_running_stats=True, or use nn.GroupNorm"
            )


def refuse_coupled_rows(
    module: nn.Module,
    losses: Pass,
    pair: Tensor,
    together: Tensor,
    alone: Tensor,
    precision: torch.dtype,
) -> None:
    """Raise ValueError where two rows have other losses together than each alone.

    Parameters
    ----------
    module : torch.nn.Module
    losses : callable
        One forward pass: rows to losses.
    pair : torch.Tensor, (2, ...)
    together, alone : torch.Tensor, (2,)
        Losses of the pair as one batch, and of each row as a batch of one.
    precision : torch.dtype
        What the network computes in: what is below its rounding is no influence.
    """
    # A network that draws random numbers differs from itself.
    if alike(together, alone, precision) or not alike(losses(pair), together, precision):
        return
    row = int((together - alone).abs().nan_to_num(torch.inf).argmax())
    of_row, of_pair = (_overheard(module, losses, rows) for rows in (pair[row : row + 1], pair))
    guilty = _first_that_differs(of_row, of_pair, row, near(precision))
    where = "in the network" if not guilty else f"in layer '{guilty}' ({_kind(module, guilty)})"
    raise ValueError(
        f"rows influence each other {where}: the first has loss {alone[0]:.6g} alone and {together[0]:.6g} "
        f"beside the second, {alone[1]:.6g} alone and {together[1]:.6g} beside it, so no row has a gradient "
        f"of its own. Is an axis other than the first taken for the rows (batch_first=True), or "
        f"does something normalise over the batch?"
    )


def in_company(together: Tensor, alone: Tensor, precision: torch.dtype) -> str:
    """Return how the losses of rows in a batch differ from those alone, empty where by rounding at most.

    Parameters
    ----------
    together : torch.Tensor, (n,)
    alone : torch.Tensor, (k,)
        Of the first k of them, each as a batch of one.
    precision : torch.dtype
        What the network computes in.
    """
    first = together[: len(alone)]
    if alike(first, alone, precision):
        return ""
    row = int((first - alone).abs().nan_to_num(torch.inf).argmax())
    which = f"row {row}" if row else "the first"
    return (
        f"rows influence each other: {which} has loss {alone[row]:.6g} alone and {first[row]:.6g} among "
        f"{len(together)}, so no row has a gradient of its own. Does something normalise over the batch, or "
        f"does the network go another way with many rows than with one?"
    )


def _kind(module: nn.Module, name: str) -> str:
    return type(module.get_submodule(name)).__name__


def alike(one: Tensor, other: Tensor, precision: torch.dtype) -> bool:
    """Tell whether losses computed in this precision differ by rounding alone."""
    return _alike(one, other, near(precision))


def the_same(one: Tensor, other: Tensor, precision: torch.dtype) -> bool:
    """Tell whether losses of the very same rows are the same, but for sums in another order."""
    return _alike(one, other, near(precision) / 50)


def precision_of(
    module: nn.Module, autocast: torch.dtype | None, seen: Iterable[torch.dtype] = ()
) -> torch.dtype:
    """Return the coarsest type that a network computes in, by its parameters and by what a pass has seen.

    In eight bits or less numbers are kept, and not computed with.
    """
    own = (p.dtype for p in module.parameters() if p.dtype.is_floating_point or p.dtype.is_complex)
    types = (dtype for dtype in (*own, *seen) if dtype.itemsize > 1)
    return max(*types, autocast or torch.float64, key=lambda dtype: torch.finfo(dtype).eps)


def near(precision: torch.dtype) -> float:
    """Return by what share numbers computed in this precision may differ by rounding alone."""
    # Half of the digits, and a little more, are left to rounding and to kernels that the size of the batch
    # chooses: 0.0008 in float32.
    return math.pow(torch.finfo(precision).eps, 0.45)


def _alike(one: Tensor, other: Tensor, near: float) -> bool:
    """Tell whether two tensors differ by rounding alone."""
    if not one.is_floating_point():
        return bool((one == other).all())
    largest = other.abs().nan_to_num(0, 0, 0).amax() if other.numel() else 0
    return torch.allclose(one, other, rtol=near, atol=near * float(largest), equal_nan=True)


Heard = list[tuple[str, list[Tensor], list[Tensor]]]  # (module, what went in, what came out), innermost first


def _overheard(module: nn.Module, losses: Pass, x: Tensor) -> Heard:
    heard: Heard = []

    def listen(name: str) -> Any:
        def hook(layer: nn.Module, args: Any, named: Any, output: Any) -> None:
            heard.append((name, list(_copies((args, named))), list(_copies(output))))

        return hook

    hooks = [
        part.register_forward_hook(untraced(listen(name)), with_kwargs=True)
        for name, part in module.named_modules()
        if name
    ]
    try:
        losses(x)
    finally:
        for hook in hooks:
            hook.remove()
    return heard


def _copies(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value.detach().clone()
    elif isinstance(value, dict):
        for one in value.values():
            yield from _copies(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _copies(one)


def _first_that_differs(alone: Heard, together: Heard, row: int, near: float) -> str:
    """Return the first module that makes something else of the same row, empty where there is none."""
    for (name, went_in, came_out), (other, beside, left) in zip(alone, together, strict=False):
        if name != other or len(went_in) != len(beside) or len(came_out) != len(left):
            return ""
        same = all(_alike_in_row(*sides, row, near) for sides in zip(went_in, beside, strict=True))
        if same and not all(_alike_in_row(*sides, row, near) for sides in zip(came_out, left, strict=True)):
            return name
    return ""


def _alike_in_row(one: Tensor, two: Tensor, row: int, near: float) -> bool:
    """Compare a tensor of one row with a row of a tensor of two, whichever axis holds the rows."""
    if one.shape == two.shape:
        return _alike(one, two, near)
    for axis in range(min(one.ndim, two.ndim)):
        if two.shape[axis] == 2 and one.shape == (beside := two.narrow(axis, row, 1)).shape:
            return _alike(one, beside, near)
    return False
