"""Plans: made once for a network and a shape of rows, and anew where a pass shows that one is outdated."""

from __future__ import annotations

from collections import Counter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from anograd.gradients.coupling import in_company, precision_of, refuse_batch_statistics
from anograd.gradients.expanded import why_refused
from anograd.gradients.probing import LOOKED_AT, SORTED, by_kind, differing, losses_of, probe
from anograd.gradients.rules import find_rule
from anograd.gradients.served import CHANGED, ELSEWHERE, NO_RULE, NOT_ROWS, RULE, Plan, Served
from anograd.gradients.tape import Tape, graph_of
from anograd.target import Target, forward_pass, undisturbed

Key = tuple[Any, ...]
KEPT = 256  # plans of a network: sequences of any length would make ever more of them

# What a target's plan is depends on the network and the shape of a row alone; nothing of the data is kept.
_PLANS: WeakKeyDictionary[Target, dict[Key, Plan]] = WeakKeyDictionary()


class Outdated(Exception):
    """A pass that does not go through the network as planned.

    Attributes
    ----------
    doubts : dict of str to str
        Parameters that a rule would serve wrongly, and why.
    """

    def __init__(self, doubts: dict[str, str]) -> None:
        super().__init__("; ".join(f"'{name}': {why}" for name, why in doubts.items()))
        self.doubts = doubts


def plan(target: Target, x: Tensor | None = None, *, autocast: torch.dtype | None = None) -> Plan:
    """Return which rule serves which chosen parameter and what a row costs; print it to read it.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...), optional
        Rows like those to come; a few of them are run through the network, alone and together.
        Without it, the plan goes by the kinds of layers alone and knows no memory for the passes.
    autocast : torch.dtype, optional
        As for `per_sample`.

    Returns
    -------
    Plan

    Raises
    ------
    TypeError
        Where x is no tensor.
    ValueError
        Where there is no row, or rows influence each other, with the layer that lets them.

    Examples
    --------
    >>> from torch import nn
    >>> from anograd import Target
    >>> print(plan(Target.adopt(nn.Sequential(nn.Linear(3, 3)))))
    parameter  shape  floats a row  layer   served by
    0.weight   3x3    9             Linear  rule
    0.bias     3      3             Linear  rule
    gradient: 12 floats a row when stored in full
    """
    if x is None:
        return Plan(by_kind(target), (), 0, autocast)
    _check_rows(x)
    refuse_batch_statistics(target.module)
    known, key = _PLANS.setdefault(target, {}), _key(target, x, autocast)
    # A few rows, or such as are alike, cannot tell whether they influence each other or change places.
    if key not in known or (known[key].rows < min(len(x), SORTED) and known[key].rows < len(differing(x))):
        with undisturbed(), forward_pass(target):
            doubts = known[key].doubts if key in known else {}
            known[key] = probe(target, x, autocast, doubts)
        while len(known) > KEPT:
            del known[next(iter(known))]
    return known[key]


def _check_rows(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}; a tensor is wanted: torch.as_tensor(x)")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(
            f"there are no rows: x has shape {tuple(x.shape)}, wanted (n, ...) with n of 1 or more"
        )


def _key(target: Target, x: Tensor, autocast: torch.dtype | None) -> Key:
    first = next(target.module.parameters())
    return x.shape[1:], x.dtype, x.device, first.device, first.dtype, autocast


def plan_anew(target: Target, x: Tensor, rows: Tensor, before: Plan, doubts: dict[str, str]) -> Plan:
    """Return a plan that these rows of x show to be right, and keep it for rows like x.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...)
    rows : torch.Tensor, (m, ...)
        Those whose pass the plan before did not fit.
    before : Plan
    doubts : dict of str to str
        Parameters that no rule is to serve, and why, beyond those of the plan before.
    """
    with forward_pass(target):
        made = probe(target, rows, before.autocast, before.doubts | doubts)
        _PLANS.setdefault(target, {})[_key(target, x, before.autocast)] = made
    return made


def check_fits(target: Target, planned: Plan, x: Tensor, tape: Tape, anew: bool) -> None:
    """Raise Outdated where the pass of these rows does not go through the network as planned.

    Parameters
    ----------
    target : Target
    planned : Plan
    x : torch.Tensor, (n, ...)
    tape : Tape
    anew : bool
        Whether the plan was made anew with these very rows: then it is not that the network has changed.

    Raises
    ------
    Outdated
    ValueError
        Where what a row goes through depends on its company, and its loss with it.
    """
    graph = graph_of(tape)
    noted = tape.noted()
    doubts = {
        one.name: why
        for one in planned.served
        if one.by == RULE and (why := _why_doubted(one, target, tape, noted, graph.uses))
    }
    way = len(x) == 1, hash(graph.nodes)
    if not doubts and way in planned.graphs:
        return
    if not anew:
        raise Outdated(doubts)
    if doubts or noted != Counter(planned.calls):
        _refuse_company(target, planned, x, tape.loss.detach())
    if doubts:
        raise Outdated(doubts)
    planned.graphs.add(way)


def _why_doubted(
    one: Served, target: Target, tape: Tape, noted: Counter[tuple[str, str]], uses: Counter[str]
) -> str:
    """Return why a rule would serve a parameter wrongly in this pass, empty where it would not."""
    for layer, own in one.uses:
        if why := why_refused(tape.refused, layer):
            return why
        if find_rule(target.module.get_submodule(layer), own) is None:
            return NO_RULE
    calls = [call for call in tape.calls if (call.layer, call.part) in one.products]
    if any(call.changed() for call in calls):
        return CHANGED
    if any(not len(call.a) == call.shape[0] == len(tape.loss) for call in calls):
        return NOT_ROWS
    return ELSEWHERE if uses[one.name] != len(calls) else ""


def _refuse_company(target: Target, planned: Plan, x: Tensor, together: Tensor) -> None:
    """Raise ValueError where rows have other losses in this company than alone."""
    alone = torch.cat([losses_of(target, row, planned.autocast) for row in torch.split(x[:LOOKED_AT], 1)])
    if told := in_company(together, alone, precision_of(target.module, planned.autocast)):
        raise ValueError(told)
