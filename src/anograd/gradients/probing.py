"""A few rows run through a network, to see where its rules may be trusted and whether rows stay apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn

from anograd.gradients.coupling import (
    alike,
    in_company,
    near,
    precision_of,
    refuse_coupled_rows,
    the_same,
)
from anograd.gradients.expanded import REPLACED, TWICE, left_to_rules, part_of, why_refused
from anograd.gradients.fallback import vmap_gradients
from anograd.gradients.footprint import bytes_a_row
from anograd.gradients.rules import Factors, find_rule, wide
from anograd.gradients.served import (
    ANOTHER,
    CHANGED,
    ELSEWHERE,
    NO_RULE,
    NOT_ROWS,
    ROWS,
    RULE,
    VMAP,
    Plan,
    Served,
)
from anograd.gradients.tape import Call, Graph, Tape, graph_of, recording
from anograd.losses import OF_LOGITS, OF_PROBABILITIES, refuse_outputs
from anograd.target import Target, output_of, untraced

LOOKED_AT = 64  # rows among which the probe looks for some that differ from the first
COMPANIES = 4  # of them beside which the first is tried: one alone may hardly change it by chance
SORTED = 16  # rows that are looked for in each other's place, since a few may be in order as they come
ROOM = 2**28  # bytes for that
MIXED = "rows come in another order there"
OLD_CHECKPOINT = "CheckpointFunctionBackward"


def by_kind(target: Target) -> tuple[Served, ...]:
    """Return how each chosen parameter is served as the kinds of layers have it; nothing is run."""
    parameters = target.parameters()
    name_of = {id(p): name for name, p in parameters.items()}
    owners: dict[str, list[tuple[str, str]]] = {name: [] for name in parameters}
    for layer_name, layer in target.module.named_modules():
        for own_name, p in layer.named_parameters(recurse=False, remove_duplicate=False):
            if id(p) in name_of:
                owners[name_of[id(p)]].append((layer_name, own_name))
    return tuple(_by_kind(target, name, p, tuple(owners[name])) for name, p in parameters.items())


def _uses(target: Target, one: Served) -> Iterator[tuple[nn.Module, str]]:
    return ((target.module.get_submodule(layer), own) for layer, own in one.uses)


def _by_kind(target: Target, name: str, p: Tensor, uses: tuple[tuple[str, str], ...]) -> Served:
    layers = [target.module.get_submodule(layer) for layer, _ in uses]
    kinds = " + ".join(type(layer).__name__ for layer in layers)
    owned = list(zip(layers, uses, strict=True))
    products = tuple((layer_name, part_of(layer, own)) for layer, (layer_name, own) in owned)
    by, why = RULE, ""
    if any(find_rule(layer, own) is None for layer, (_, own) in owned):
        by, why = VMAP, NO_RULE
    elif any("forward" in vars(layer) for layer in layers):
        by, why = VMAP, REPLACED
    elif p.is_complex():
        by, why = VMAP, "complex numbers"
    return Served(name, p.shape, by, uses, products, kinds, why)


def probe(target: Target, x: Tensor, autocast: torch.dtype | None, doubts: dict[str, str]) -> Plan:
    """Return the plan that a few rows show to be right.

    Where a network takes gradients itself, layers that are written out for their rules are in its way: their
    backward pass runs once only, and has no derivative. It is looked at anew, with those layers as they are.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...)
    autocast : torch.dtype or None
        What products are computed in.
    doubts : dict of str to str
        Parameters that no rule is to serve, and why.

    Raises
    ------
    ValueError
        Where rows influence each other, or gradients or losses cannot be what they are taken for.
    """
    once = {
        one.name: TWICE for one in by_kind(target) if any(left_to_rules(*use) for use in _uses(target, one))
    }
    try:
        found = _probed(target, x, autocast, doubts)
    except RuntimeError:
        if once.keys() <= doubts.keys():
            raise
        return _probed(target, x, autocast, doubts | _beside(target, once))
    twice = {one.name: TWICE for one in found.served if one.why.startswith(TWICE) and one.name not in doubts}
    return _probed(target, x, autocast, doubts | twice) if twice else found


def _beside(target: Target, names: Collection[str]) -> dict[str, str]:
    """Return a doubt of all chosen parameters of the layers that hold one of these."""
    served = by_kind(target)
    layers = {layer for one in served if one.name in names for layer, _ in one.uses}
    return {one.name: TWICE for one in served if layers & {layer for layer, _ in one.uses}}


def _probed(target: Target, x: Tensor, autocast: torch.dtype | None, doubts: dict[str, str]) -> Plan:
    rows = differing(x)
    pairs = [torch.stack([rows[0], other]) for other in rows[1 : 1 + COMPANIES]] or [torch.cat([rows, rows])]
    served = [
        replace(one, by=VMAP, why=doubts[one.name]) if one.by == RULE and one.name in doubts else one
        for one in by_kind(target)
    ]
    ruled = [one for one in served if one.by == RULE]
    layers = list(dict.fromkeys(layer for one in ruled for layer, _ in one.uses))
    names = [one.name for one in ruled] or target.layers
    comparable = [one.name for one in ruled if not any(left_to_rules(*use) for use in _uses(target, one))]
    if target.loss in (*OF_PROBABILITIES, *OF_LOGITS):
        refuse_outputs(target.loss, output_of(target, pairs[0]))
    with recording(target, rows[:1], layers, names, autocast) as single:
        pass
    room = bytes_a_row(target, pairs[0], layers, names, autocast)
    with recording(target, pairs[0], layers, names, autocast) as tape, _hearing(target) as heard:
        graph = graph_of(tape)
        _refuse_old_checkpoints(graph)
        gradients, sums = tape.gradients_and_sums(comparable)
    _refuse_passed_by(target, graph)
    precision = precision_of(target.module, autocast, {call.dtype for call in tape.calls})
    draws = not the_same(losses_of(target, pairs[0], autocast), tape.loss.detach(), precision)
    if not draws:
        _refuse_coupled(target, pairs, single.loss.detach(), tape.loss.detach(), autocast, precision)
    room += sum(d.numel() * d.element_size() for d in gradients) + pairs[0].numel() * 4
    many = rows[: max(2, ROOM // max(1, room))]
    mixed, tapes = _mixed(target, many, layers, names, autocast, precision)
    pair = _Pair(target, tape, gradients, sums, graph, precision)
    served = [_checked(one, single, pair, mixed) if one.by == RULE else one for one in served]
    doubts = doubts | {one.name: one.why for one in served if one.why == MIXED}
    kept = {layer for one in served if one.by == RULE for layer, _ in one.products}
    waiting = [one.name for one in served if one.by == VMAP]
    if waiting and (error := _vmap_error(target, pairs[0], waiting, autocast)):
        served = [
            replace(one, by=ROWS, why=_both(one.why, error)) if one.by == VMAP else one for one in served
        ]
    elif waiting and ruled:  # a pass of their own
        room += bytes_a_row(target, pairs[0], (), waiting, autocast)
    calls = tuple((call.layer, call.part) for call in tape.calls if call.layer in kept)
    graphs = {
        (len(one.loss) == 1, hash(graph_of(one).nodes))
        for one in (single, tape, *tapes)
        if one.noted() == tape.noted()
    }
    return Plan(tuple(served), calls, room, autocast, bool(heard), draws, graphs, doubts, len(rows))


def losses_of(target: Target, x: Tensor, autocast: torch.dtype | None) -> Tensor:
    """Return the loss of each row in one pass, (n,), without a graph."""
    with recording(target, x, (), (), autocast) as tape:
        return tape.loss.detach()


def differing(x: Tensor) -> Tensor:
    """Return the first row and, of those that follow, some that differ from it, (k, ...)."""
    others = (row for row in x[1:LOOKED_AT] if not torch.equal(row, x[0]))
    return torch.stack([x[0], *islice(others, SORTED - 1)])


def _refuse_old_checkpoints(graph: Graph) -> None:
    if OLD_CHECKPOINT in graph.nodes:
        raise ValueError(
            "the network keeps checkpoints of the kind from which gradients come by .backward() alone: "
            "call torch.utils.checkpoint.checkpoint with use_reentrant=False"
        )


def _refuse_passed_by(target: Target, graph: Graph) -> None:
    """Raise ValueError where the loss depends on a parameter itself, past what stands for it."""
    for name, parameter in target.parameters().items():
        if id(parameter) in graph.others:
            raise ValueError(
                f"the network or its loss holds {name!r} itself, in a list or as a captured variable, and "
                f"that use would be missed: reach it by its module, such as self.layer.weight, or by "
                f"net.parameters() inside the loss; after pruning or an old weight_norm, prune.remove or "
                f"remove_weight_norm makes it one again"
            )


def _refuse_coupled(
    target: Target,
    pairs: list[Tensor],
    first: Tensor,
    together: Tensor,
    autocast: torch.dtype | None,
    precision: torch.dtype,
) -> None:
    """Raise ValueError where rows influence each other; the losses of the first row and pair are known."""

    def losses(rows: Tensor) -> Tensor:
        return losses_of(target, rows, autocast)

    for i, pair in enumerate(pairs):
        alone = torch.cat([first, losses(pair[1:])])
        refuse_coupled_rows(target.module, losses, pair, losses(pair) if i else together, alone, precision)


def _mixed(
    target: Target,
    rows: Tensor,
    layers: Sequence[str],
    names: Sequence[str],
    autocast: torch.dtype | None,
    precision: torch.dtype,
) -> tuple[set[tuple[str, str]], list[Tape]]:
    """Return the products at which the first row is not in its place, by what comes in or by its gradient.

    A network that sorts its rows, and puts them back, has them in another order inside. They may be sorted
    already, but not from both ends. The tapes of both passes come with them.
    """
    found, tapes = set(), []
    for batch in (rows, rows.flip(0)):
        with recording(target, batch[:1], layers, names, autocast) as alone:
            pass
        with recording(target, batch, layers, names, autocast) as tape:
            gradients = tape.gradients(of=tape.loss[0])
        tapes.append(tape)
        together = tape.loss.detach()
        told = in_company(together, alone.loss.detach(), precision)
        # A network that draws random numbers differs from itself.
        if told and the_same(losses_of(target, batch, autocast), together, precision):
            raise ValueError(told)
        own = _inputs(alone)
        for product, inputs in _inputs(tape).items():
            pairs = [(a[:1], of_one) for a, of_one in zip(inputs, own.get(product, ()), strict=False)]
            if any(a.shape == of_one.shape and not alike(a, of_one, precision) for a, of_one in pairs):
                found.add(product)
        for call, d in zip(tape.calls, gradients, strict=True):
            if (d[1:].isfinite() & (d[1:] != 0)).any():
                found.add((call.layer, call.part))
    return found, tapes


def _inputs(tape: Tape) -> dict[tuple[str, str], list[Tensor]]:
    inputs: dict[tuple[str, str], list[Tensor]] = {}
    for call in tape.calls:
        inputs.setdefault((call.layer, call.part), []).append(call.a)
    return inputs


@dataclass(frozen=True)
class _Pair:
    """What a pass of two rows shows, and whose pass it is."""

    target: Target
    tape: Tape
    gradients: list[Tensor]  # at the outputs of the calls
    sums: dict[str, Tensor]  # over both rows, at parameters whose gradient autograd finds, too
    graph: Graph
    precision: torch.dtype

    def calls(self, one: Served) -> list[tuple[Call, Tensor]]:
        """Return the calls of the products that a parameter has part in, and the gradients there."""
        noted = zip(self.tape.calls, self.gradients, strict=True)
        return [(call, d) for call, d in noted if (call.layer, call.part) in one.products]


def _checked(one: Served, single: Tape, pair: _Pair, mixed: set[tuple[str, str]]) -> Served:
    """Return `one` if its rule may be trusted on this network, else hand it to the fallback."""
    for layer, _ in one.products:
        if why := why_refused(pair.tape.refused, layer):
            return replace(one, by=VMAP, why=why)
    calls = pair.calls(one)
    if any(call.changed() for call, _ in calls):
        return replace(one, by=VMAP, why=CHANGED)
    if pair.graph.uses[one.name] != len(calls):
        return replace(one, by=VMAP, why=ELSEWHERE)
    lengths = {side.shape[0] for call, d in calls for side in (call.a, d)}
    # One row too, because another axis may be as long as two rows.
    of_one = {n for call in single.calls if (call.layer, call.part) in one.products for n in (len(call.a),)}
    if not (lengths <= {2} and of_one <= {1}):
        return replace(one, by=VMAP, why=NOT_ROWS)
    if not mixed.isdisjoint(one.products):
        return replace(one, by=VMAP, why=MIXED)
    if one.name in pair.sums and _differs(one, pair):
        return replace(one, by=VMAP, why=ANOTHER)
    return one


def _differs(one: Served, pair: _Pair) -> bool:
    """Tell whether a parameter's gradients by rule add up to another gradient than autograd's.

    As where the network takes a gradient itself, and the parameter enters the loss through that, too.
    Compared are their products with a random one, so that none is built; what is no more than rounding of
    the summands is no difference.
    """
    expected = wide(pair.sums[one.name])
    drawn = torch.randn(expected.shape or (1,), generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    reference = drawn.to(expected)

    def factors(side: Callable[[Tensor], Tensor]) -> Iterator[Factors]:
        for (layer_name, own), product in zip(one.uses, one.products, strict=True):
            layer = pair.target.module.get_submodule(layer_name)
            rule = find_rule(layer, own)
            assert rule is not None
            for call, d in pair.calls(one):
                if (call.layer, call.part) == product:
                    yield rule(layer, side(wide(call.a)), side(wide(d)))

    product = sum(float(each.inner(reference).sum()) for each in factors(lambda side: side))
    summands = sum(float(each.length().sum()) for each in factors(torch.abs)) + float(expected.norm())
    difference = product - float((expected.reshape(reference.shape) * reference).sum())
    return abs(difference) > near(pair.precision) * summands


def _both(why: str, error: str) -> str:
    return f"{why}; vmap: {error}" if why and why != NO_RULE else f"vmap: {error}"


def _vmap_error(target: Target, pair: Tensor, names: list[str], autocast: torch.dtype | None) -> str:
    """Return why ``vmap(grad)`` does not work on this network, empty when it does."""
    try:
        vmap_gradients(target, pair, names, autocast)
    except (RuntimeError, ValueError) as error:
        return str(error).splitlines()[0][:120]
    return ""


@contextmanager
def _hearing(target: Target) -> Iterator[list[bool]]:
    """Fill a list with a mark for each module that is called."""
    heard: list[bool] = []
    with ExitStack() as undo:
        mark = untraced(lambda *_: heard.append(True))
        for part in target.module.modules():
            undo.callback(part.register_forward_pre_hook(mark).remove)
        yield heard
