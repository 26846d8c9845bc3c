"""Which rule serves which layer, the floats a row, and the chunk that fits a memory budget."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from anograd.gradients.coupling import refuse_batch_statistics, refuse_coupled_rows
from anograd.gradients.expanded import part_of, why_refused
from anograd.gradients.fallback import vmap_gradients
from anograd.gradients.rules import find_rule
from anograd.gradients.tape import Tape, count_uses, record
from anograd.losses import OF_PROBABILITIES, refuse_logits
from anograd.target import Target, forward_pass, output_of, undisturbed

RULE, VMAP, ROWS = "rule", "vmap", "row by row"
LOOKED_AT = 64  # rows among which the probe looks for some that differ from the first
COMPANIES = 4  # of them beside which the first is tried: one alone may hardly change it by chance
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Served:
    """How one parameter's per-sample gradients are computed."""

    name: str
    shape: torch.Size
    by: str  # RULE, VMAP or ROWS
    uses: tuple[tuple[str, str], ...]  # (layer, parameter name in the layer)
    products: tuple[tuple[str, str], ...]  # (layer, part of it) of each use
    layer: str  # kinds of the layers, for people
    why: str = ""  # why no rule serves it


@dataclass(frozen=True)
class Plan:
    """Which rule serves which parameter, and what a row costs. Prints itself.

    Attributes
    ----------
    served : tuple of Served
        One a chosen parameter, in order.
    calls : tuple of (str, str)
        Layer names, and which part of each layer, in the order in which they are called.
    bytes_a_row : int
        What one forward and backward pass holds for a row; 0 where the plan was made without rows.
    autocast : torch.dtype or None
        What products are computed in.
    """

    served: tuple[Served, ...]
    calls: tuple[tuple[str, str], ...]
    bytes_a_row: int
    autocast: torch.dtype | None = None

    def by(self, *ways: str) -> tuple[str, ...]:
        """Return the names of the parameters served in any of these ways."""
        return tuple(one.name for one in self.served if one.by in ways)

    def chunk(self, memory: str | int) -> int:
        """Return how many rows go through at once within this much memory, at least 1."""
        fallen_back = sum(one.shape.numel() for one in self.served if one.by != RULE)
        return max(1, parse_memory(memory) // max(1, self.bytes_a_row + 4 * fallen_back))

    def __str__(self) -> str:
        rows = [("parameter", "shape", "floats a row", "layer", "served by")]
        for one in self.served:
            by = one.by if not one.why else f"{one.by} ({one.why})"
            rows.append((one.name, "x".join(map(str, one.shape)), f"{one.shape.numel():,}", one.layer, by))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(row[i].ljust(widths[i]) for i in range(4)), row[4]]) for row in rows]
        total = sum(one.shape.numel() for one in self.served)
        lines.append(f"gradient: {total:,} floats a row when stored in full")
        if self.bytes_a_row:
            lines.append(
                f"forward and backward: {self.bytes_a_row:,} bytes a row; "
                f"{self.chunk('1GiB'):,} rows at once within memory='1GiB'"
            )
        return "\n".join(lines)


def parse_memory(memory: str | int) -> int:
    """Return a memory budget in bytes, from bytes or a text such as "512MiB" or "2GB"."""
    if isinstance(memory, int) and memory > 0:
        return memory
    matched = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", str(memory).lower())
    if matched is None or float(matched[1]) <= 0:
        raise ValueError(f"memory={memory!r} is no amount of memory: write it like memory='1GiB' or in bytes")
    return int(float(matched[1]) * UNITS[matched[2]])


# What a target's plan is depends on the network and the shape of a row alone; nothing of the data is kept.
_PLANS: WeakKeyDictionary[Target, dict[Any, Plan]] = WeakKeyDictionary()


def plan(target: Target, x: Tensor | None = None, *, autocast: torch.dtype | None = None) -> Plan:
    """Return which rule serves which chosen parameter and what a row costs; print it to read it.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...), optional
        Rows like those to come; a few of them are run through the network, two together and each alone.
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
        owners = _owners(target)
        return Plan(tuple(_by_kind(target, name, owners[name]) for name in target.layers), (), 0, autocast)
    _check_rows(x)
    # A single row cannot tell whether rows influence each other, so the first pair is looked at again.
    key = (x.shape[1:], x.dtype, x.device, _placement(target), autocast, len(x) > 1)
    known = _PLANS.setdefault(target, {})
    if key not in known:
        with undisturbed(), forward_pass(target):
            known[key] = _probe(target, _pairs(x), autocast)
    return known[key]


def _check_rows(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}; a tensor is wanted: torch.as_tensor(x)")
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(
            f"there are no rows: x has shape {tuple(x.shape)}, wanted (n, ...) with n of 1 or more"
        )


def _pairs(x: Tensor) -> list[Tensor]:
    """Return the first row beside each of some others, (2, ...), that differ from it where there are such."""
    others = list(islice((row for row in x[1:LOOKED_AT] if not torch.equal(row, x[0])), COMPANIES))
    return [torch.stack([x[0], other]) for other in others or [x[0]]]


def _placement(target: Target) -> tuple[torch.device, torch.dtype]:
    first = next(target.module.parameters())
    return first.device, first.dtype


def _owners(target: Target) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return for each chosen parameter the (layer, name in the layer) of all modules that hold it."""
    name_of = {id(p): name for name, p in target.parameters().items()}
    owners: dict[str, list[tuple[str, str]]] = {name: [] for name in target.layers}
    for layer_name, layer in target.module.named_modules():
        for own_name, p in layer.named_parameters(recurse=False, remove_duplicate=False):
            if id(p) in name_of:
                owners[name_of[id(p)]].append((layer_name, own_name))
    return {name: tuple(uses) for name, uses in owners.items()}


def _by_kind(target: Target, name: str, uses: tuple[tuple[str, str], ...]) -> Served:
    layers = [target.module.get_submodule(layer) for layer, _ in uses]
    kinds = " + ".join(type(layer).__name__ for layer in layers)
    shape = target.parameters()[name].shape
    owned = list(zip(layers, uses, strict=True))
    products = tuple((layer_name, part_of(layer, own)) for layer, (layer_name, own) in owned)
    if all(find_rule(layer, own) is not None for layer, (_, own) in owned):
        return Served(name, shape, RULE, uses, products, kinds)
    return Served(name, shape, VMAP, uses, products, kinds, "no rule for this layer")


def _probe(target: Target, pairs: list[Tensor], autocast: torch.dtype | None) -> Plan:
    pair, owners = pairs[0], _owners(target)
    served = [_by_kind(target, name, owners[name]) for name in target.layers]
    ruled = [one for one in served if one.by == RULE]
    layers = list(dict.fromkeys(layer for one in ruled for layer, _ in one.uses))
    names = [one.name for one in ruled] or target.layers
    refuse_batch_statistics(target.module)
    if target.loss in OF_PROBABILITIES:
        with torch.no_grad():
            refuse_logits(target.loss, output_of(target, pair))

    def losses(rows: Tensor) -> Tensor:
        return record(target, rows, (), (), autocast).loss

    single = record(target, pair[:1], layers, names, autocast)
    with _counting_bytes(target) as held:
        tape = record(target, pair, layers, names, autocast)
        uses = count_uses(tape)
        gradients = tape.gradients()
    precision = autocast or _placement(target)[1]
    for two in pairs:
        together = tape.loss.detach() if two is pair else losses(two)
        alone = torch.cat([single.loss.detach(), losses(two[1:])])
        refuse_coupled_rows(target.module, losses, two, together, alone, precision)
    served = [_checked(one, single, tape, gradients, uses) if one.by == RULE else one for one in served]
    kept = {product for one in served if one.by == RULE for product in one.products}
    kept_layers = {layer for layer, _ in kept}
    waiting = [one.name for one in served if one.by == VMAP]
    if waiting and (error := _vmap_error(target, pair, waiting, autocast)):
        served = [
            replace(one, by=ROWS, why=_both(one.why, error)) if one.by == VMAP else one for one in served
        ]
    held_by_gradients = sum(d.numel() * d.element_size() for d in gradients)
    calls = tuple((call.layer, call.part) for call in tape.calls if call.layer in kept_layers)
    bytes_of_pair = sum(held.values()) + 2 * held_by_gradients + pair.numel() * 8
    return Plan(tuple(served), calls, bytes_of_pair // 2, autocast)


def _checked(one: Served, single: Tape, tape: Tape, gradients: list[Tensor], uses: Counter[str]) -> Served:
    """Return `one` if its rule may be trusted on this network, else hand it to the fallback."""
    for layer, _ in one.products:
        if why := why_refused(tape.refused, layer):
            return replace(one, by=VMAP, why=why)
    calls = [
        (call, d)
        for call, d in zip(tape.calls, gradients, strict=True)
        if (call.layer, call.part) in one.products
    ]
    if any(call.changed() for call, _ in calls):
        return replace(one, by=VMAP, why="its input is changed in place afterwards")
    if uses[one.name] != len(calls):
        return replace(one, by=VMAP, why="also used outside its layer")
    lengths = {side.shape[0] for call, d in calls for side in (call.a, d)}
    # One row too, because another axis may be as long as two rows.
    of_one = {n for call in single.calls if (call.layer, call.part) in one.products for n in (len(call.a),)}
    if not (lengths <= {2} and of_one <= {1}):
        return replace(one, by=VMAP, why="its input does not have the rows first")
    return one


def _both(why: str, error: str) -> str:
    return f"{why}; vmap: {error}" if why and why != "no rule for this layer" else f"vmap: {error}"


def _vmap_error(target: Target, pair: Tensor, names: list[str], autocast: torch.dtype | None) -> str:
    """Return why ``vmap(grad)`` does not work on this network, empty when it does."""
    try:
        vmap_gradients(target, pair, names, autocast)
    except (RuntimeError, ValueError) as error:
        return str(error).splitlines()[0][:120]
    return ""


@contextmanager
def _counting_bytes(target: Target) -> Iterator[dict[int, int]]:
    """Count the bytes that autograd holds for the backward pass, each storage once, parameters apart."""
    held: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in target.module.parameters()}

    def pack(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in parameters and not saved.is_leaf:
            held[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        yield held
