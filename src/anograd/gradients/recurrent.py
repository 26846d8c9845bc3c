"""LSTM, GRU and plain RNN written out, so that the products of each layer and direction can be noted."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from anograd.gradients.expanded import TWICE, Notes, expands
from anograd.gradients.layers import linear_bias, linear_weight
from anograd.gradients.rules import rule
from anograd.gradients.steps import GRUSteps, LSTMSteps, RNNSteps

RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)


def _one_width(layer: nn.Module) -> bool:
    """Tell whether the state has the width of the cell: a projected one is a further product."""
    return cast(nn.RNNBase, layer).proj_size == 0


def _not_a_batch(layer: nn.RNNBase, input: Any, hx: Any = None) -> str:
    if isinstance(input, PackedSequence):
        return "packed sequence"
    if not _one_width(layer):
        return "proj_size"
    if input.ndim != 3 or input.shape[1 if layer.batch_first else 0] == 0:
        return "input without an axis of rows"
    ndims = {state.ndim for state in (hx if isinstance(hx, tuple) else (hx,)) if state is not None}
    return "" if ndims <= {3} else "initial states of another shape"


@expands(*RECURRENT, unless=_not_a_batch, ruled_alone="weight_hh_l*")
def run(
    layer: nn.RNNBase, notes: Notes, input: Tensor, hx: Any = None
) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
    """Return what the module returns: outputs of the last layer, last states of all layers and directions."""
    x = input if layer.batch_first else input.transpose(0, 1)
    directions = 2 if layer.bidirectional else 1
    states = hx if isinstance(hx, tuple) else (hx,)
    if hx is None:
        zeros = x.new_zeros(layer.num_layers * directions, len(x), layer.hidden_size)
        states = (zeros,) * (2 if layer.mode == "LSTM" else 1)
    last: list[tuple[Tensor, ...]] = []
    for level in range(layer.num_layers):
        sides = []
        for direction in range(directions):
            name = f"l{level}" + "_reverse" * direction
            first = [state[level * directions + direction] for state in states]
            out, *reached = _direction(layer, notes, name, x.flip(1) if direction else x, first)
            sides.append(out.flip(1) if direction else out)
            last.append(tuple(reached))
        x = torch.cat(sides, 2) if directions == 2 else sides[0]
    ends = tuple(torch.stack(each) for each in zip(*last, strict=True))
    return x if layer.batch_first else x.transpose(0, 1), ends if layer.mode == "LSTM" else ends[0]


def _direction(layer: nn.RNNBase, notes: Notes, name: str, x: Tensor, first: list[Tensor]) -> list[Tensor]:
    """Return outputs (n, t, h) and last states (n, h) of one layer and direction, steps in the order of x."""
    across, recurrent = (getattr(layer, f"weight_{side}_{name}") for side in ("ih", "hh"))
    bias: tuple[Any, Any] = (None, None)
    if layer.bias:
        bias = getattr(layer, f"bias_ih_{name}"), getattr(layer, f"bias_hh_{name}")
    gru = layer.mode == "GRU"
    together = bias[0] if gru or not layer.bias else bias[0] + bias[1]
    # Time first in memory, rows first to read.
    z = _asking(F.linear(x.transpose(0, 1), across, together).transpose(0, 1))
    first = [state.to(z.dtype) for state in first]
    recurrent, zh = recurrent.to(z.dtype), z
    # Nothing that leads to the pass's own graph, which would keep itself alive through it.
    twice = partial(notes.refuse, TWICE)
    if gru:
        repeated = bias[1].to(z.dtype) if layer.bias else z.new_zeros(1)
        zh = _asking(repeated.expand(z.shape))
        found = _run(GRUSteps, twice, z, zh, *first, recurrent)
    elif layer.mode == "LSTM":
        found = _run(LSTMSteps, twice, z, *first, recurrent)
    else:
        found = _run(RNNSteps, twice, z, *first, recurrent, layer.mode == "RNN_RELU")
    before = found.pop()
    notes.product("", f"ih_{name}", x, z)
    notes.product("", f"hh_{name}", before, zh)
    return found


def _run(steps: type[torch.autograd.Function], *given: Any) -> list[Tensor]:
    return list(steps.apply(*given))  # type: ignore[no-untyped-call]


def _asking(z: Tensor) -> Tensor:
    """Return z with a place in the graph, which it lacks where only the recurrent weight is chosen."""
    return z if z.requires_grad or not torch.is_grad_enabled() else z.requires_grad_()


for side in ("ih", "hh"):
    rule(*RECURRENT, parameter=f"weight_{side}_l*", when=_one_width)(linear_weight)
    rule(*RECURRENT, parameter=f"bias_{side}_l*", when=_one_width)(linear_bias)
