"""One forward and one backward pass that note each chosen layer's input and the loss gradient at its output.

The module runs with stand-ins for its parameters, of which only the chosen ones ask for a
gradient. So frozen parameters work, layers before the first chosen one keep no graph, and the
module's own parameters, flags and ``.grad`` are never written.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call

from anograd.losses import check_rows
from anograd.target import Target, evaluating

# Hooks and stand-ins sit on the module for the length of a forward pass: one thread at a time.
_FORWARD = threading.RLock()


@dataclass(frozen=True)
class Call:
    """One call of a layer: who, its input, and where the loss gradient at its output is found."""

    layer: str
    a: Tensor
    output: GradientEdge
    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class Tape:
    """What a recorded forward pass leaves: the losses with their graph, and the calls in order."""

    loss: Tensor  # (n,), with graph
    calls: tuple[Call, ...]
    stand_ins: dict[str, Tensor]

    def gradients(self) -> list[Tensor]:
        """Return d, the gradient of each row's loss at the output of each call; uses the graph up."""
        if not self.calls or not self.loss.requires_grad:
            return [self.loss.new_zeros(call.shape, dtype=call.dtype) for call in self.calls]
        found = torch.autograd.grad(
            self.loss, [call.output for call in self.calls], torch.ones_like(self.loss), allow_unused=True
        )
        return [
            self.loss.new_zeros(call.shape, dtype=call.dtype) if d is None else d
            for call, d in zip(self.calls, found, strict=True)
        ]


def record(target: Target, x: Tensor, layers: Sequence[str], parameters: Sequence[str]) -> Tape:
    """Return the tape of one forward pass over a batch.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...)
    layers : sequence of str
        Module names whose calls are noted.
    parameters : sequence of str
        Parameter names that take part in the graph.
    """
    stand_ins = {
        name: p.detach().requires_grad_(name in parameters) for name, p in target.module.named_parameters()
    }
    calls: list[Call] = []

    def note(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
            if not output.requires_grad:  # the network called it under no_grad, so nothing comes back
                return
            a = args[0] if args else next(iter(named.values()))
            # The edge, not the tensor: an in-place activation after the layer would rebind the tensor.
            edge = get_gradient_edge(output)
            calls.append(Call(name, a.detach(), edge, output.shape, output.dtype))

        return hook

    with _FORWARD, evaluating(target.module), torch.enable_grad():
        hooks = [
            target.module.get_submodule(name).register_forward_hook(note(name), with_kwargs=True)
            for name in layers
        ]
        try:
            output = functional_call(target.module, stand_ins, (x,))
        finally:
            for hook in hooks:
                hook.remove()
        loss = check_rows(target.loss(output, x), len(x))
    return Tape(loss, tuple(calls), {name: stand_ins[name] for name in parameters})


def count_uses(tape: Tape) -> Counter[str]:
    """Return how often each parameter enters the graph of the loss.

    A parameter that enters more often than its layer was called is also used behind the layer's
    back (tied weights, a functional call), where a rule would not see it.
    """
    name_of = {id(stand_in): name for name, stand_in in tape.stand_ins.items()}
    uses: Counter[str] = Counter()
    seen: set[Any] = set()
    waiting = [tape.loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            variable = getattr(following, "variable", None)
            if variable is not None and id(variable) in name_of:
                uses[name_of[id(variable)]] += 1
            elif following is not None:
                waiting.append(following)
    return uses
