"""What `anograd.per_sample` finds, in plain tensor operations that a graph can hold.

The forward pass is recorded on the engine's tape, and its rules state the gradients. What differs is how
these are reduced: nothing depends on the number of rows, which is free in a graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from anograd.gradients import PerSample, Sketch
from anograd.gradients.layers import ConvolutionColumns
from anograd.gradients.rules import Direct, Factors, Outer, find_rule
from anograd.gradients.served import RULE, Plan
from anograd.gradients.tape import recording
from anograd.onnx.operations import gather, taps
from anograd.represent import SHORTEST
from anograd.target import Target

Projections = Mapping[str, tuple[Tensor | None, Tensor | None]]


def projections(target: Target, sketch: Sketch | None) -> Projections | None:
    """Return the matrices of a sketch by parameter, to be drawn before a graph is traced.

    What is drawn while it is traced holds no numbers, and would stay in the sketch's memory.

    Parameters
    ----------
    target : Target
    sketch : Sketch or None
    """
    if sketch is None:
        return None
    return {name: sketch.projections(name, one) for name, one in target.parameters().items()}


def one_pass(
    target: Target,
    planned: Plan,
    x: Tensor,
    want: Collection[str],
    *,
    reference: Mapping[str, Tensor] | None = None,
    weight: Mapping[str, Tensor] | None = None,
    sketch: Projections | None = None,
    unit: bool = False,
) -> PerSample:
    """Return losses and gradient quantities of each row, as `anograd.per_sample` does.

    Parameters
    ----------
    target : Target
    planned : Plan
        How each parameter is served, all of them by rules: from `check_rules`.
    x : torch.Tensor, (n, ...)
    want : collection of str
        "loss", and any of "norm", "inner", "weighted", "sketch", "full".
    reference : mapping of str to torch.Tensor, optional
        For "inner".
    weight : mapping of str to torch.Tensor, optional
        For "weighted".
    sketch : mapping of str to pair of torch.Tensor, optional
        For "sketch": from `projections`.
    unit : bool, default False
        For "sketch" and "full": divide each parameter's gradient by its length.
    """
    layers = list(dict.fromkeys(layer for layer, _ in planned.calls))
    with recording(target, x, layers, target.layers) as tape:
        gradients = tape.gradients()
    sides: dict[tuple[str, str], list[tuple[Tensor, Tensor]]] = {}
    for call, d in zip(tape.calls, gradients, strict=True):
        sides.setdefault((call.layer, call.part), []).append((call.a, d))
    found: dict[str, list[Tensor]] = {name: [] for name in want if name != "loss"}
    for served, parameter in zip(planned.served, target.parameters().values(), strict=True):
        factors: list[Factors] = []
        for (layer, own), product in zip(served.uses, served.products, strict=True):
            module = target.module.get_submodule(layer)
            rule = find_rule(module, own)
            assert rule is not None  # the plan says so
            factors += [rule(module, a, d) for a, d in sides.get(product, ())]
        if not factors:  # never called, so nothing depends on it
            factors = [Direct(x.new_zeros(1).to(parameter).expand(len(x), *parameter.shape))]
        gradient = _one(factors, parameter.shape, found)
        for kind, columns in found.items():
            columns.append(_read(gradient, kind, served.name, reference, weight, sketch))
            if unit and kind in ("sketch", "full"):
                columns[-1] = columns[-1] / gradient.length().unsqueeze(1).clamp_min(SHORTEST)
    joined = {name: torch.cat(columns, dim=1) for name, columns in found.items()}
    return PerSample(
        loss=tape.loss.detach(), norm=joined.get("norm"), inner=joined.get("inner"),
        weighted=joined.get("weighted"), full=joined.get("full"), sketch=joined.get("sketch"), fold=None,
        kink=None, layers=target.layers,
    )  # fmt: skip


def _read(
    gradient: Factors,
    kind: str,
    name: str,
    reference: Mapping[str, Tensor] | None,
    weight: Mapping[str, Tensor] | None,
    sketch: Projections | None,
) -> Tensor:
    if kind == "norm":
        return gradient.length().unsqueeze(1)
    if kind == "full":
        return gradient.full()
    if kind == "inner":
        assert reference is not None
        return gradient.inner(reference[name]).unsqueeze(1)
    if kind == "weighted":
        assert weight is not None
        return gradient.weighted(weight[name]).unsqueeze(1)
    assert sketch is not None
    return gradient.sketch(*sketch[name])


def _one(factors: list[Factors], shape: torch.Size, want: Collection[str]) -> Factors:
    """Return the factors of a parameter's gradient, built where that is cheaper or several add up."""
    first, *others = map(_gathered, factors)
    lengths = not {"norm", "weighted"}.isdisjoint(want)
    builds = "full" in want or (lengths and first.prefers_full("inner" in want, "weighted" in want))
    if not others and not builds:
        return first
    total = first.built(shape)
    for other in others:
        total = total + other.built(shape)
    return Direct(total)


class GatheredColumns(ConvolutionColumns):
    """The windows of a convolution's input, gathered: a graph knows no convolution of each row by itself."""

    def windows(self) -> Tensor:
        even = (1,) * len(self.kernel)
        index = taps(
            self.a.shape[2:], self.kernel, self.stride, self.padding, self.dilation, self.positions, even
        )
        read = gather(self.a, index, 0.0).reshape(len(self.a), *index.shape, self.groups, -1)
        return read.permute(0, 3, 2, 1, 4).flatten(3)  # (n, kernel, t, k, channels of a group) before

    def outer(self, left: Tensor) -> Tensor:
        return self.by_windows(left)


def _gathered(factors: Factors) -> Factors:
    if not isinstance(factors, Outer) or not isinstance(factors.right, ConvolutionColumns):
        return factors
    return replace(factors, right=GatheredColumns(**vars(factors.right)))


def check_rules(planned: Plan) -> Plan:
    """Return the plan where rules serve all parameters; else raise ValueError that names the others."""
    unruled = [one for one in planned.served if one.by != RULE]
    if unruled:
        raise ValueError(
            f"the gradients of {', '.join(one.name for one in unruled)} ({unruled[0].layer}) follow no rule "
            f"of the engine, and only rules can be written into a graph: choose other layers, or register a "
            f"rule (CONTRIBUTING.md)"
        )
    return planned
