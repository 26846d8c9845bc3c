"""One forward and one backward pass that note each chosen layer's input and the loss gradient at its output.

Where a layer is several products, each of them is noted (`anograd.gradients.expanded`). The module runs with
stand-ins for its parameters, of which only the chosen ones ask for a gradient. So frozen parameters work,
layers before the first chosen one keep no graph, and the module's own parameters, flags and ``.grad`` are
never written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from anograd.gradients.expanded import REPLACED, TRANSFORMED, expandable, expanding, transformed
from anograd.gradients.kinks import nearest, watching
from anograd.losses import check_rows
from anograd.target import Target, detached, forward_pass, losses, pick, standing_in, untraced, usable


@dataclass(frozen=True)
class Call:
    """One product: which layer and part of it, its input, and where the gradient at its output is found."""

    layer: str
    part: str  # "" where the layer is one product
    a: Tensor
    output: GradientEdge
    shape: torch.Size
    dtype: torch.dtype
    version: int  # of `a` when it was noted

    def changed(self) -> bool:
        """Tell whether the input was written over since, in place: it is not what the layer saw."""
        return self.a._version != self.version


@dataclass(frozen=True)
class Tape:
    """What a recorded forward pass leaves: the losses with their graph, and the calls in order."""

    loss: Tensor  # (n,), with graph
    calls: tuple[Call, ...]
    stand_ins: dict[str, Tensor]
    refused: dict[str, str]  # layers that were not expanded, and why
    kink: Tensor | None  # (n,), how near each row comes to one

    def noted(self) -> Counter[tuple[str, str]]:
        """Return how often each product was called."""
        return Counter((call.layer, call.part) for call in self.calls)

    def gradients(self, of: Tensor | None = None) -> list[Tensor]:
        """Return d, the gradient of each row's loss at the output of each call; uses the graph up.

        With `of`, one number made of the losses, its gradient instead.
        """
        return self.gradients_and_sums((), of)[0]

    def gradients_and_sums(
        self, names: Sequence[str], of: Tensor | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return `gradients` and those of the sum at parameters of these names, of one backward pass."""
        own = {name: self.stand_ins[name] for name in names}
        wanted: list[Any] = [*(call.output for call in self.calls), *own.values()]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if wanted and self.loss.requires_grad:
            if of is None:
                # One number, since torch, asked for more, first loads what takes most of a second: SymPy. The
                # ones give the gradient at each loss memory of its own: some read it there, or write into it.
                of = (self.loss * torch.ones_like(self.loss)).sum()
            found = torch.autograd.grad(of, wanted, allow_unused=True)
        at_calls, at_own = found[: len(self.calls)], found[len(self.calls) :]
        gradients = [
            self.loss.new_zeros(call.shape, dtype=call.dtype) if d is None else d.reshape(call.shape)
            for call, d in zip(self.calls, at_calls, strict=True)
        ]
        sums = {
            name: torch.zeros_like(one) if d is None else d.to_dense() if d.is_sparse else d
            for (name, one), d in zip(own.items(), at_own, strict=True)
        }
        return gradients, sums

    def of_parameters(self) -> dict[str, Tensor]:
        """Return the gradient of the sum of the losses at each parameter; uses the graph up."""
        return self.gradients_and_sums(tuple(self.stand_ins))[1]


@contextmanager
def recording(
    target: Target,
    x: Tensor,
    layers: Sequence[str],
    parameters: Sequence[str],
    autocast: torch.dtype | None = None,
    kinks: bool = False,
) -> Iterator[Tape]:
    """Run one forward pass over a batch, and keep the stand-ins in place for a backward pass that needs them.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...)
    layers : sequence of str
        Module names whose calls are noted.
    parameters : sequence of str
        Parameter names that take part in the graph.
    autocast : torch.dtype, optional
        What products are computed in.
    kinks : bool, default False
        Whether to note how near each row comes to a kink.
    """
    x = usable(x)
    wanted = set(layers)
    calls: list[Call] = []
    whole = False  # what a backward pass runs again, where the network has checkpoints, is no other call

    def note(name: str, part: str, a: Tensor, output: Tensor) -> None:
        # Called under no_grad, nothing comes back.
        if name in wanted and (transformed(a) or transformed(output)):
            refused[name] = TRANSFORMED
        elif name in wanted and output.requires_grad and torch.is_grad_enabled() and not whole:
            # The edge, not the tensor: an in-place activation after the layer would rebind the tensor.
            edge = get_gradient_edge(_written_to(output))
            seen = a.detach()
            calls.append(Call(name, part, seen, edge, output.shape, output.dtype, seen._version))

    def hook_of(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
            note(name, "", args[0] if args else next(iter(named.values())), output)

        return hook

    watched: AbstractContextManager[list[Tensor]] = watching(target.module) if kinks else nullcontext([])
    with ExitStack() as undo:
        undo.enter_context(forward_pass(target))
        undo.enter_context(torch.enable_grad())
        refused = undo.enter_context(expanding(target.module, wanted, note))
        near = undo.enter_context(watched)
        stand_ins = detached(target)
        chosen = pick(stand_ins, parameters)
        for stand_in in chosen.values():
            stand_in.requires_grad_()
        for name in layers:
            layer = target.module.get_submodule(name)
            if not expandable(layer):
                if "forward" in vars(layer):
                    refused[name] = REPLACED
                hook = layer.register_forward_hook(untraced(hook_of(name)), prepend=True, with_kwargs=True)
                undo.callback(hook.remove)
        undo.enter_context(standing_in(target, stand_ins))
        loss = check_rows(losses(target, x, autocast), len(x))
        whole = True
        kink = nearest(near, loss.detach()) if kinks else None
        yield Tape(loss, tuple(calls), chosen, refused, kink)


def _written_to(output: Tensor) -> Tensor:
    """Return the tensor that an output is the whole of, seen in another shape, or the output itself.

    Writing to such a view goes into the graph of what it is a view of, and takes the view itself out of it.
    A linear layer's output for rows of several positions is one. A view of a parameter, which no network may
    write to, has a place of its own: a bias repeated for one row is as long as the bias.
    """
    whole = output._base
    if whole is None or whole.is_leaf or not whole.requires_grad or whole.numel() != output.numel():
        return output
    return whole if whole.is_contiguous() and output.is_contiguous() else output


@dataclass(frozen=True)
class Graph:
    """What autograd holds of a pass: how often each parameter enters it, its nodes, and what else does."""

    uses: Counter[str]
    nodes: tuple[str, ...]
    others: frozenset[int]  # by their ids


def graph_of(tape: Tape) -> Graph:
    """Return the graph of the loss.

    A parameter that enters it more often than its layer was called is also used behind the layer's
    back (tied weights, a functional call), where a rule would not see it.
    """
    name_of = {id(stand_in): name for name, stand_in in tape.stand_ins.items()}
    uses: Counter[str] = Counter()
    nodes: list[str] = []
    others: set[int] = set()
    seen: set[Any] = set()
    waiting = [tape.loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes.append(node.name())
        for following, _ in node.next_functions:
            variable = getattr(following, "variable", None)
            if variable is not None and id(variable) in name_of:
                uses[name_of[id(variable)]] += 1
            elif following is not None:
                others |= {id(variable)} if variable is not None else set()
                waiting.append(following)
    return Graph(uses, tuple(nodes), frozenset(others))
