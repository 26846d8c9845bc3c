"""How many bytes a pass through a network holds for a row, at its largest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from anograd.gradients.tape import recording
from anograd.target import Target

Storages = dict[int, int]  # where one begins, and its bytes


def bytes_a_row(
    target: Target, pair: Tensor, layers: Sequence[str], names: Sequence[str], autocast: torch.dtype | None
) -> int:
    """Return what a forward pass holds for a row: what autograd keeps, or what is there on the way.

    What no chosen parameter comes before, such as a frozen front, leaves nothing with autograd, and yet an
    operation's inputs and outputs are there at once.

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
        found: list[tuple[int, list[tuple[str, int]]]] = []
        for rows in (pair[:1], pair):
            with (
                _kept(counted) as held,
                _Operations() as done,
                recording(target, rows, layers, names, autocast),
            ):
                pass
            # Without a count, all that is made counts as kept.
            found.append((sum(held.values()) if counted else done.made, done.sizes))
        (kept, one), (of_two, two) = found
        if [name for name, _ in one] == [name for name, _ in two]:  # what weights take cancels
            passing = max((more - size for (_, size), (_, more) in zip(one, two, strict=True)), default=0)
        else:
            passing = max(size for _, size in two) - max((size for _, size in one), default=0)
        return max(of_two - kept, passing)

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
        # Without its graph: a node that keeps its own output would keep itself, as no backward pass follows.
        return saved.detach() if saved.grad_fn is not None else saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        yield held


class _Operations(TorchDispatchMode):
    """Counts what operations take and give.

    Attributes
    ----------
    sizes : list of (str, int)
        What each is called, and the bytes that it takes and gives.
    made : int
        Bytes that all of them give.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = 0
        self.sizes: list[tuple[str, int]] = []

    supports_higher_order_operators = True  # such as torch.cond

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let compiled parts of a network run as they are."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads its compiler, a second or more

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        given = _storages((args, kwargs))
        made = sum(size for place, size in _storages(output).items() if place not in given)
        # Kernels of convolutions have a copy of what they give, laid out otherwise.
        copies = made if "conv" in str(func) else 0
        self.sizes.append((str(func), sum(given.values()) + made + copies))
        self.made += made
        return output


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
