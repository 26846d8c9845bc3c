"""How many bytes a pass through a network holds for a row, at its largest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from anograd.gradients.tape import recording
from anograd.target import Target, untraced

Storages = dict[int, int]  # where one begins, and its bytes


def bytes_a_row(
    target: Target, pair: Tensor, layers: Sequence[str], names: Sequence[str], autocast: torch.dtype | None
) -> int:
    """Return what a forward pass holds for a row: what autograd keeps, or what is there on the way.

    What no chosen parameter comes before, such as a frozen front, leaves nothing with autograd, and yet a
    layer's input and output are there at once.

    Parameters
    ----------
    target : Target
    pair : torch.Tensor, (2, ...)
        Rows. What one of them takes is what a pass of two takes more than a pass of one.
    layers, names : sequence of str
        As for `recording`.
    autocast : torch.dtype or None
    """

    def of_both(counted: bool) -> int:
        found: list[tuple[int, int]] = []
        for rows in (pair[:1], pair):
            with (
                _kept(counted) as held,
                _passing(target.module) as calls,
                recording(target, rows, layers, names, autocast),
            ):
                pass
            # Without a count, all that goes in and comes out of modules counts as kept.
            found.append((sum(held.values()) if counted else sum(calls), max(calls, default=0)))
        (kept, passing), (of_two, passing_two) = found
        return max(of_two - kept, passing_two - passing)

    try:
        return of_both(True)
    except RuntimeError:  # transforms of torch.func, called by the network, allow no hooks on what is kept
        return of_both(False)


@contextmanager
def _kept(counted: bool) -> Iterator[Storages]:
    """Count the bytes that autograd holds for the backward pass, each storage once, or nothing."""
    held: Storages = {}
    if not counted:
        yield held
        return

    def pack(saved: Tensor) -> Tensor:
        held.update(_storages(saved))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        yield held


@contextmanager
def _passing(module: nn.Module) -> Iterator[list[int]]:
    """Fill a list with the bytes that each call of a module takes: what goes in, and what comes out."""
    sizes: list[int] = []

    def hook(part: nn.Module, args: Any, named: Any, output: Any) -> None:
        # Kernels of convolutions have a copy of what they give, laid out otherwise.
        sizes.append(sum(_storages((args, named)).values()) + 2 * sum(_storages(output).values()))

    with ExitStack() as undo:
        for part in module.modules():
            undo.callback(part.register_forward_hook(untraced(hook), with_kwargs=True).remove)
        yield sizes


def _storages(value: Any) -> Storages:
    """Return the storages of all tensors in a value that have one."""
    if isinstance(value, Tensor):
        try:
            storage = value.untyped_storage()
            return {storage.data_ptr(): storage.nbytes()}
        except (RuntimeError, NotImplementedError):  # sparse, or of a transform
            return {}
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    found: Storages = {}
    for one in inside:
        found |= _storages(one)
    return found
