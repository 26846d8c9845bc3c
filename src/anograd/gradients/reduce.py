"""Walks a parameter's factors block by block and reads off what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import cast

import torch
from torch import Tensor

from anograd.gradients.pairs import floats_of_pairs, prefers_pairs, summed_length
from anograd.gradients.rules import Direct, Factors, Projection

# A block of rows holds about this many floats at once: few enough to stay in a cache, and so many that there
# are few blocks, each of which costs a dozen calls.
BLOCK_FLOATS = 2**21
# One order, so that nothing depends on that of a set: the length copies windows that the next two use again.
READ = ("norm", "sketch", "inner", "weighted", "full", "fold")


def reduce(
    uses: list[Factors],
    shape: torch.Size,
    wanted: Collection[str],
    references: Sequence[Tensor],
    weight: Tensor | None,
    projections: tuple[Projection, Projection] | None,
    fold: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the wanted quantities of one parameter, each (n, columns); "inner" is (n, 1, references).

    Parameters
    ----------
    uses : list of Factors
        One for each use of the parameter; their gradients add up.
    shape : torch.Size
        The parameter's.
    wanted : collection of str
        Any of "norm", "inner", "weighted", "full", "sketch", "fold".
    references : sequence of torch.Tensor
        For "inner".
    weight : torch.Tensor or None
        For "weighted".
    projections : pair or None
        For "sketch".
    fold : callable, optional
        For "fold": gradients (b, *shape) -> (b, columns).
    """
    n = len(uses[0])
    floats = sum(one.floats_a_row() for one in uses)
    builds = not {"full", "fold"}.isdisjoint(wanted) or (
        not {"norm", "weighted"}.isdisjoint(wanted)
        and _prefers_full(uses, "inner" in wanted, "weighted" in wanted)
    )
    if len(uses) > 1:
        floats += shape.numel() if builds else floats_of_pairs(uses)
    blocks = -(-n // max(1, BLOCK_FLOATS // max(1, floats)))
    block = -(-n // blocks)  # all about as large
    parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for start in range(0, n, block):
        here = uses if block >= n else [one.rows(slice(start, start + block)) for one in uses]
        if builds:
            # The gradient is built anyway, so everything else is read off it.
            here = [Direct(_sum([one.built(shape) for one in here]))]
        for name in (name for name in READ if name in wanted):
            parts[name].append(_read(here, name, references, weight, projections, fold))
    return {name: part[0] if len(part) == 1 else torch.cat(part) for name, part in parts.items()}


def _prefers_full(uses: list[Factors], inner: bool, weighted: bool) -> bool:
    if len(uses) == 1:
        return uses[0].prefers_full(inner, weighted)
    return weighted or not prefers_pairs(uses)


def _read(
    uses: list[Factors],
    name: str,
    references: Sequence[Tensor],
    weight: Tensor | None,
    projections: tuple[Projection, Projection] | None,
    fold: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    if name == "full":
        return uses[0].full()
    if name == "norm":
        length = uses[0].length() if len(uses) == 1 else summed_length(uses)
        return length.unsqueeze(1)
    if name == "inner":
        products = [_sum([one.inner(reference) for one in uses]) for reference in references]
        return torch.stack(products, dim=1).unsqueeze(1)
    if name == "weighted":
        assert weight is not None
        return uses[0].weighted(weight).unsqueeze(1)
    if name == "fold":
        assert fold is not None
        return _folded(fold, cast(Direct, uses[0]).gradient.contiguous())  # which may be viewed as it likes
    assert projections is not None
    return _sum([one.sketch(*projections) for one in uses])


def _folded(fold: Callable[[Tensor], Tensor], gradient: Tensor) -> Tensor:
    found = fold(gradient)
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(gradient):
        given = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"fold returned {given} for gradients of shape {tuple(gradient.shape)}; a tensor of shape "
            f"({len(gradient)}, columns) is wanted, one row each: such as gradient.flatten(1).sum(1, True)"
        )
    return found


def _sum(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).sum(0)
