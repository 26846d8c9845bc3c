"""The engine's only door: quantities of each row's gradient, from one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from anograd.gradients.fallback import row_gradients, vmap_gradients
from anograd.gradients.planning import Outdated, check_fits, plan, plan_anew
from anograd.gradients.reduce import reduce
from anograd.gradients.rules import Direct, Factors, find_rule, wide
from anograd.gradients.served import ROWS, RULE, VMAP, Plan
from anograd.gradients.sketch import Sketch
from anograd.gradients.tape import Tape, recording
from anograd.target import Target, undisturbed

QUANTITIES = ("loss", "norm", "inner", "weighted", "full", "sketch", "fold", "kink")
OF_FORWARD = ("loss", "kink")
Fold = Callable[[str, Tensor], Tensor]
Reference = Mapping[str, Tensor]
Found = dict[str, Tensor]


@dataclass(frozen=True)
class PerSample:
    """What :func:`anograd.per_sample` found; fields that were not wanted are None.

    Attributes
    ----------
    loss : torch.Tensor, (n,)
        Loss of each row.
    norm : torch.Tensor, (n, l)
        Length of each row's gradient, one column a chosen parameter.
    inner : torch.Tensor, (n, l), or (n, l, r) for a sequence of r references
        Inner product of each row's gradient with the reference.
    weighted : torch.Tensor, (n, l)
        Sum of each row's squared gradient entries, each times its weight.
    full : torch.Tensor, (n, g)
        The gradients, parameters flattened and joined in order.
    sketch : torch.Tensor, (n, k)
        The sketches, joined in order.
    fold : torch.Tensor, (n, j)
        What the caller's own reduction gave, parameter after parameter.
    kink : torch.Tensor, (n,)
        How near each row comes to the kink of an `nn.ReLU`, in units of the largest input that it has there;
        0 at the kink, where a gradient jumps.
    layers : tuple of str
        The chosen parameters, in the order of the columns.
    """

    loss: Tensor | None
    norm: Tensor | None
    inner: Tensor | None
    weighted: Tensor | None
    full: Tensor | None
    sketch: Tensor | None
    fold: Tensor | None
    kink: Tensor | None
    layers: tuple[str, ...]


def per_sample(
    target: Target,
    x: Tensor,
    want: Collection[str] = ("loss", "norm"),
    *,
    reference: Reference | Sequence[Reference] | None = None,
    weight: Reference | None = None,
    sketch: Sketch = Sketch(),
    fold: Fold | None = None,
    memory: str | int = "1GiB",
    autocast: torch.dtype | None = None,
) -> PerSample:
    """Return losses and gradient quantities of each row, each row's as if it were alone in the batch.

    All that is wanted comes out of one forward and one backward pass. Only "full" stores
    gradients. The network is used in evaluation mode and given back as it was: no hook, no ``.grad``, no
    changed flag stays behind, and no random number is drawn. Complex parameters count as pairs of real ones.

    Parameters
    ----------
    target : Target
        Network, loss and layers, from ``Target.adopt(module, loss=..., layers=...)``.
    x : torch.Tensor, (n, ...)
        Rows first; on the network's device.
    want : collection of str, default ("loss", "norm")
        Any of "loss", "norm", "inner", "weighted", "full", "sketch", "fold", "kink".
    reference : mapping of str to torch.Tensor, or a sequence of such, optional
        For "inner": a tensor of the parameter's shape for each chosen parameter's name. Several references
        cost one pass.
    weight : mapping of str to torch.Tensor, optional
        For "weighted": a tensor of the parameter's shape for each chosen parameter's name. With weights of 1
        it gives the squared norm.
    sketch : Sketch, optional
        For "sketch": size a parameter, and seed.
    fold : callable, optional
        For "fold", a reduction of your own: ``(parameter name, gradients (b, *shape)) -> (b, columns)``,
        called with a block of rows at a time, so that gradients need not be stored.
    memory : str or int, default "1GiB"
        Bounds how many rows are worked on at once, as bytes or a text such as "512MiB". What is
        returned, ``full`` above all, comes on top.
    autocast : torch.dtype, optional
        ``torch.bfloat16`` or ``torch.float16``: forward and backward run under ``torch.autocast``. The loss,
        and all that is read off inputs and gradients of layers, is float32 still. Gradients below
        6e-8 vanish in float16; bfloat16 has float32's range. ``nn.LSTM`` in bfloat16 wants a processor
        with AVX-512, or to be called within ``torch.backends.mkldnn.flags(enabled=False)``.

    Returns
    -------
    PerSample

    Raises
    ------
    TypeError
        Where rows, a reference or a weight are no tensors.
    ValueError
        For an unknown quantity, a missing or ill-shaped reference or weight, no rows, or a loss that does
        not give one number a row.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from anograd import Target, per_sample
    >>> net = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.zeros_(net.weight)
    >>> found = per_sample(Target.adopt(net), torch.tensor([[3.0, 4.0]]), want=("loss", "norm"))
    >>> found.loss, found.norm
    (tensor([12.5000]), tensor([[25.]]))
    """
    wanted = _check_wanted(want)
    _check_autocast(autocast)
    parameters = target.parameters()
    references = _check_references(parameters, reference) if "inner" in wanted else []
    weights = _check_weight(parameters, weight) if "weighted" in wanted else {}
    if "fold" in wanted and fold is None:
        raise ValueError(
            "'fold' is wanted without one: pass fold=, (name, gradients (b, *shape)) -> (b, columns)"
        )
    planned = plan(target, x, autocast=autocast)
    one_pass = partial(
        _one_pass, target, parameters, wanted,
        references=references, weights=weights, sketch=sketch, fold=fold,
    )  # fmt: skip
    chunks = []
    with undisturbed():
        for rows in torch.split(x, planned.chunk(memory)):
            planned, found = _as_planned(target, x, rows, planned, one_pass)
            chunks.append(found)
        joined = {name: _joined([chunk[name] for chunk in chunks]) for name in wanted}
    if "fold" in joined and not torch.is_grad_enabled():  # a fold may have weights of its own
        joined["fold"] = joined["fold"].detach()
    if isinstance(reference, Mapping) and "inner" in joined:
        joined["inner"] = joined["inner"].squeeze(2)
    return PerSample(**{name: joined.get(name) for name in QUANTITIES}, layers=target.layers)


def _check_wanted(want: Collection[str]) -> tuple[str, ...]:
    wanted = (want,) if isinstance(want, str) else tuple(want)
    unknown = [name for name in wanted if name not in QUANTITIES]
    if unknown or not wanted:
        raise ValueError(f"want={want!r}, but what can be had is any of {', '.join(map(repr, QUANTITIES))}")
    return wanted


def _check_autocast(autocast: torch.dtype | None) -> None:
    if autocast not in (None, torch.bfloat16, torch.float16):
        raise ValueError(
            f"autocast={autocast!r} is no type to compute in: leave it out, or use autocast=torch.bfloat16 "
            f"or torch.float16"
        )


def _read(tensor: Tensor) -> Tensor:
    """Return a parameter or its gradient as it is read: no half precision, complex numbers as pairs."""
    return torch.view_as_real(tensor) if tensor.is_complex() else wide(tensor)


def _check_references(
    parameters: Found, reference: Reference | Sequence[Reference] | None
) -> list[dict[str, Tensor]]:
    given = [reference] if isinstance(reference, Mapping) else list(reference or ())
    if not given:
        raise ValueError("'inner' is wanted without a reference: pass reference={parameter name: tensor}")
    return [_check_shapes(parameters, one, "reference") for one in given]


def _check_weight(parameters: Found, weight: Reference | None) -> dict[str, Tensor]:
    if weight is None:
        raise ValueError("'weighted' is wanted without a weight: pass weight={parameter name: tensor}")
    return _check_shapes(parameters, weight, "weight", complex(1, 1))  # the same for both of a pair


def _check_shapes(parameters: Found, tensors: Reference, what: str, pair: complex = 1) -> Found:
    checked = {}
    for name, parameter in parameters.items():
        if name not in tensors:
            raise ValueError(
                f"the {what} has nothing for parameter '{name}'; it names "
                f"{', '.join(tensors) or 'nothing'}: give one tensor for each of target.layers"
            )
        given = tensors[name]
        if not isinstance(given, Tensor):
            raise TypeError(
                f"the {what} for '{name}' is a {type(given).__name__}; a tensor is wanted: torch.as_tensor"
            )
        if given.shape != parameter.shape:
            raise ValueError(
                f"the {what} for '{name}' has shape {tuple(given.shape)}, "
                f"but the parameter has shape {tuple(parameter.shape)}"
            )
        like = wide(parameter)
        moved = given.detach().to(device=like.device, dtype=like.dtype)
        checked[name] = _read(moved * pair if like.is_complex() else moved).reshape(_axes(parameter))
    return checked


def _axes(parameter: Tensor) -> torch.Size:
    """Return the shape that a parameter's gradient is read in: of a single number, a vector of one."""
    return _read(parameter).shape or torch.Size([1])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _as_planned(
    target: Target, x: Tensor, rows: Tensor, planned: Plan, one_pass: Callable[[Plan, Tensor, bool], Found]
) -> tuple[Plan, Found]:
    """Return the plan, anew where these rows show it to be outdated, and what a pass as planned finds."""
    anew = False
    while True:
        try:
            return planned, one_pass(planned, rows, anew)
        except Outdated as outdated:
            planned = plan_anew(target, x, rows, planned, outdated.doubts if anew else {})
            anew = True


def _one_pass(
    target: Target,
    parameters: Found,
    wanted: tuple[str, ...],
    planned: Plan,
    x: Tensor,
    anew: bool,
    *,
    references: list[dict[str, Tensor]],
    weights: dict[str, Tensor],
    sketch: Sketch,
    fold: Fold | None,
) -> Found:
    columns: dict[str, list[Tensor]] = {name: [] for name in wanted if name not in OF_FORWARD}
    tape, factors = _factors(target, parameters, planned, x, bool(columns), "kink" in wanted, anew)
    if columns:
        for name, parameter in parameters.items():
            projections = sketch.projections(name, _read(parameter)) if "sketch" in wanted else None
            own = None if fold is None else partial(fold, name)
            reduced = reduce(
                factors.pop(name),
                _axes(parameter),
                columns,
                [one[name] for one in references],
                weights.get(name),
                projections,
                own,
            )
            for quantity, column in reduced.items():
                columns[quantity].append(column)
    found = {name: torch.cat(column, dim=1) for name, column in columns.items()}
    of_forward = {"loss": tape.loss.detach().clone(), "kink": tape.kink}
    return found | {name: one for name, one in of_forward.items() if name in wanted and one is not None}


def _factors(
    target: Target, parameters: Found, planned: Plan, x: Tensor, anything: bool, kinks: bool, anew: bool
) -> tuple[Tape, dict[str, list[Factors]]]:
    """Return the forward pass and, for each chosen parameter, the factors of each of its uses."""
    tape, gradients = _passes(target, planned, x, planned.by(RULE) if anything else (), kinks, anew)
    factors: dict[str, list[Factors]] = {name: [] for name in target.layers}
    held_by: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for one in planned.served:
        for (_, own), product in zip(one.uses, one.products, strict=True) if one.by == RULE else ():
            held_by.setdefault(product, []).append((one.name, own))
    for call, d in zip(tape.calls, gradients, strict=True):
        layer = target.module.get_submodule(call.layer)
        a, d = wide(call.a), wide(d)
        for name, own in held_by.get((call.layer, call.part), ()):
            found = find_rule(layer, own)
            assert found is not None  # the pass fits the plan
            factors[name].append(found(layer, a, d))
    if anything:
        for name, gradient in _fallen_back(target, planned, x):
            factors[name].append(Direct(_read(gradient).reshape(len(x), *_axes(gradient[0]))))
        for name, parameter in parameters.items():
            if not factors[name]:  # never called, so nothing depends on it
                zero = _read(parameter.detach()).new_zeros(1)
                factors[name].append(Direct(zero.expand(len(x), *_axes(parameter))))
    return tape, factors


def _passes(
    target: Target, planned: Plan, x: Tensor, ruled: tuple[str, ...], kinks: bool, anew: bool
) -> tuple[Tape, list[Tensor]]:
    """Return the forward pass, found to be as planned, and the gradients at the outputs of its calls."""
    layers = list(dict.fromkeys(layer for layer, _ in planned.calls)) if ruled else []
    with recording(target, x, layers, ruled, planned.autocast, kinks) as tape:
        if ruled:
            check_fits(target, planned, x, tape, anew)
        if planned.recomputes:
            return tape, tape.gradients()
    return tape, tape.gradients()


def _fallen_back(target: Target, planned: Plan, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    if by_vmap := planned.by(VMAP):
        yield from vmap_gradients(target, x, by_vmap, planned.autocast).items()
    if by_rows := planned.by(ROWS):
        yield from row_gradients(target, x, by_rows, planned.autocast).items()
