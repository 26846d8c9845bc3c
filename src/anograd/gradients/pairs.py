"""The length of a sum of gradients without the sum: a weight that several layers share.

|G1 + G2|^2 = |G1|^2 + |G2|^2 + 2 <G1, G2>, and the inner product of two gradients follows from their factors:
for two sums of outer products from the products of the left sides and those of the right sides, position by
position; a look-up is a sum of outer products whose left sides are unit vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from anograd.gradients.rules import PASSES, Direct, Factors, Lookup, Outer, rooted

Pairable = Outer | Lookup


def summed_length(uses: Sequence[Factors]) -> Tensor:
    """Return the lengths of the sum of these gradients, (n,), pair by pair."""
    total = own = torch.stack([one.length().square() for one in uses]).sum(0)
    for one, other in combinations(uses, 2):
        assert isinstance(one, Pairable)
        assert isinstance(other, Pairable)
        total = total + 2 * inner(one, other)
    return rooted(total, own, lambda few: summed_length([one.rows(few).double() for one in uses]))


def inner(one: Pairable, other: Pairable) -> Tensor:
    """Return the inner products of two parameters' gradients of the same shape, (n,)."""
    if isinstance(one, Lookup) and isinstance(other, Lookup):
        same = one.index[:, :, None] == other.index[:, None, :]
        return ((one.d @ other.d.transpose(1, 2)) * same).flatten(1).sum(1)
    if isinstance(one, Lookup):
        assert isinstance(other, Outer)
        return _looked_up(one, other)
    if isinstance(other, Lookup):
        return _looked_up(other, one)
    left = torch.bmm(one.left.flatten(0, 1).transpose(1, 2), other.left.flatten(0, 1))
    right = torch.bmm(one.right.windows().flatten(0, 1), other.right.windows().flatten(0, 1).transpose(1, 2))
    return (left * right).reshape(len(one), -1).sum(1)


def _looked_up(lookup: Lookup, outer: Outer) -> Tensor:
    """Sum d_s . right_t times the entry of left_t that position s looks up."""
    left = outer.left.squeeze(1)
    t = left.shape[2]
    entries = left.gather(1, lookup.index.unsqueeze(2).expand(-1, -1, t))  # (n, s, t)
    return ((lookup.d @ outer.right.dense().squeeze(1)) * entries).flatten(1).sum(1)


def prefers_pairs(uses: Sequence[Factors]) -> bool:
    """Tell whether the pairs take fewer multiplications than the sum of the gradients."""
    sides = [_sides(one) for one in uses]
    known = [side for side in sides if side is not None]
    if len(known) < len(sides) or len({side[:3] for side in known}) > 1:
        return False
    k, r, c, _ = known[0]
    alone = sum(t if isinstance(one, Outer) else 0 for one, (*_, t) in zip(uses, known, strict=True))
    by_sum = k * r * c * (alone + PASSES)
    positions = [t for *_, t in known]
    by_pairs = k * (r + c) * sum(t * s for i, t in enumerate(positions) for s in positions[i:])
    return by_pairs < by_sum


def _sides(one: Factors) -> tuple[int, int, int, int] | None:
    """Return groups, rows, columns and positions; None where the gradient is there already."""
    if isinstance(one, Lookup):
        return 1, one.entries, one.d.shape[2], one.d.shape[1]
    if isinstance(one, Outer):
        _, k, r, t = one.left.shape
        return k, r, one.right.width(), t
    assert isinstance(one, Direct)
    return None


def floats_of_pairs(uses: Sequence[Factors]) -> int:
    """Return the floats a row that the products of positions hold."""
    positions = [0 if (sides := _sides(one)) is None else sides[3] for one in uses]
    return 2 * max((t * s for t, s in combinations(positions, 2)), default=0)
