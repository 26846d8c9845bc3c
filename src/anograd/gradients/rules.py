"""How a layer's per-sample gradient factors, and what can be read off the factors.

A rule says once which factors a parameter's gradient has. The reductions are written once for
each of the three shapes a gradient can have (`Outer`, `Lookup`, `Direct`), not once a layer. Only `full`
ever builds a gradient. Letters: n rows, k groups, r matrix rows, c matrix columns, t positions, p and q
sketch sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import vector_norm

Projection = Tensor | None  # None is the identity
CANCELLED = 1e-2  # of the sum of its summands' squares: a square below has lost digits that float32 lacks
PASSES = 20  # what it costs to write a gradient and to read it twice, in multiplications an entry; measured


class Factors(Protocol):
    """What every shape of gradient answers, for a block of n rows."""

    def full(self) -> Tensor:
        """Return the gradients, (n, g)."""

    def built(self, shape: torch.Size) -> Tensor:
        """Return the gradients, (n, *shape), in the order in memory that costs least."""

    def length(self) -> Tensor:
        """Return the lengths, (n,)."""

    def inner(self, reference: Tensor) -> Tensor:
        """Return the inner products with a tensor of the parameter's shape, (n,)."""

    def weighted(self, weight: Tensor) -> Tensor:
        """Return the sums of squared entries times a weight of the parameter's shape, (n,)."""

    def sketch(self, p: Projection, q: Projection) -> Tensor:
        """Return the flattened P G Q', (n, p * q)."""

    def prefers_full(self, inner: bool = False, weighted: bool = False) -> bool:
        """Tell whether building the gradient is the cheapest way to its length, or to that and these."""

    def floats_a_row(self) -> int:
        """Return the most floats that a reduction other than `full` holds for a row."""

    def rows(self, block: slice | Tensor) -> Factors:
        """Return the factors of a block of the rows, or of those in an index."""

    def double(self) -> Factors:
        """Return the factors in double precision."""

    def __len__(self) -> int:
        """Return n."""


class Columns(Protocol):
    """The right-hand factor of `Outer`, made on demand: a convolution need not unfold its input."""

    def dense(self) -> Tensor:
        """Return the columns, (n, k, c, t)."""

    def windows(self) -> Tensor:
        """Return the same, (n, k, t, c), with the entries of a column in whatever order costs least."""

    def outer(self, left: Tensor) -> Tensor:
        """Return the sum over positions of left_t right_t' for a left factor (n, k, r, t).

        It has the parameter's axes after n, in any order in memory.
        """

    def forward(self, weight: Tensor, rows: int) -> Tensor:
        """Return the layer's own forward with a weight of `rows` rows a group, (n, k, rows, t)."""

    def inner(self, left: Tensor, weight: Tensor) -> Tensor:
        """Return the inner products of the sum of left_t right_t' with a weight, (n,)."""

    def squared(self) -> Columns:
        """Return the columns of squared entries."""

    def width(self) -> int:
        """Return c."""

    def windows_floats_a_row(self) -> int:
        """Return the floats that `windows` holds for a row; 0 where it is a view."""

    def outer_floats_a_row(self) -> int:
        """Return the floats that `outer` holds for a row beside its result."""

    def rows(self, block: slice | Tensor) -> Columns:
        """Return the columns of a block of the rows, or of those in an index."""

    def double(self) -> Columns:
        """Return the columns in double precision."""


@dataclass(frozen=True)
class Outer:
    """G = sum over positions of left_t right_t', for each group: Linear and every convolution."""

    left: Tensor  # (n, k, r, t)
    right: Columns

    def full(self) -> Tensor:
        return self.right.outer(self.left).flatten(1)

    def built(self, shape: torch.Size) -> Tensor:
        return self.right.outer(self.left).reshape(-1, *shape)

    def prefers_full(self, inner: bool = False, weighted: bool = False) -> bool:
        _, _, r, t = self.left.shape
        c = self.right.width()
        if weighted and t > 1:  # the square of a sum is no sum of squares
            return True
        # Multiplications a row: t * t * (r + c) for the two Gram matrices, t * r * c for the gradient.
        if t * (r + c) > r * c:
            return True
        # The inner product alone takes t * r * c too: what is left is to write the gradient and read it.
        return inner and t * t * (r + c) > PASSES * r * c

    def floats_a_row(self) -> int:
        _, k, r, t = self.left.shape
        if self.prefers_full(inner=True):
            return self.right.outer_floats_a_row() + k * (r * self.right.width() + 2 * r * t)
        return self.right.windows_floats_a_row() + k * (2 * t * t + 2 * r * t)

    def length(self) -> Tensor:
        if self.prefers_full():
            return Direct(self.right.outer(self.left)).length()
        windows = self.right.windows()
        if self.left.shape[3] == 1:  # no square, which float32 may have no room for
            lengths = vector_norm(self.left, dim=(2, 3)) * vector_norm(windows, dim=(2, 3))
            return lengths.squeeze(1) if lengths.shape[1] == 1 else Direct(lengths).length()
        left, right = self.left.flatten(0, 1), windows.flatten(0, 1)
        gram = torch.bmm(left.transpose(1, 2), left) * torch.bmm(right, right.transpose(1, 2))
        square = gram.sum((1, 2)).reshape(len(self.left), -1).sum(1)
        own = gram.diagonal(dim1=1, dim2=2).sum(1).reshape(len(self.left), -1).sum(1)
        return rooted(square, own, lambda few: self.rows(few).double().length())

    def inner(self, reference: Tensor) -> Tensor:
        return self.right.inner(self.left, reference)

    def weighted(self, weight: Tensor) -> Tensor:
        if self.left.shape[3] > 1:
            return Direct(self.right.outer(self.left)).weighted(weight)
        return self.right.squared().inner(self.left.square(), weight)

    def sketch(self, p: Projection, q: Projection) -> Tensor:
        k, r, t = self.left.shape[1:]
        if p is None:
            left = self._spread_over_groups()
        elif k == 1 and self.left.stride(2) == 1:  # a position's rows lie side by side: one product for all
            left = F.linear(self.left.squeeze(1).transpose(1, 2), p).transpose(1, 2).unsqueeze(1)
        else:
            left = p.reshape(-1, k, r).transpose(0, 1) @ self.left  # (n, k, p, t)
        if q is None:
            right = self.right.dense()
        else:
            right = self.right.forward(q if k == 1 else q.repeat(k, 1), len(q))
        if k == t == 1:
            return (left.squeeze(1) * right.squeeze(1).transpose(1, 2)).flatten(1)
        # Groups add up like positions do, so both become one long axis.
        left, right = (side.transpose(1, 2).flatten(2) for side in (left, right))
        return (left @ right.transpose(-1, -2)).flatten(1)

    def _spread_over_groups(self) -> Tensor:
        """Return left (n, k, k * r, t) with every group's rows in their own place and zeros elsewhere."""
        n, k, r, t = self.left.shape
        if k == 1:
            return self.left
        own_place = torch.eye(k, dtype=self.left.dtype, device=self.left.device)
        return (own_place[:, :, None, None] * self.left[:, :, None]).reshape(n, k, k * r, t)

    def rows(self, block: slice | Tensor) -> Outer:
        return Outer(self.left[block], self.right.rows(block))

    def double(self) -> Outer:
        return Outer(self.left.double(), self.right.double())

    def __len__(self) -> int:
        return len(self.left)


@dataclass(frozen=True)
class Lookup:
    """G = sum over positions of onehot(index_t) d_t': a table of embeddings."""

    index: Tensor  # (n, t)
    d: Tensor  # (n, t, c); zero where the index is a padding index
    entries: int

    def full(self) -> Tensor:
        n, _, c = self.d.shape
        first = torch.arange(n, device=self.index.device)[:, None] * self.entries
        full = self.d.new_zeros(n * self.entries, c)
        full.index_add_(0, (self.index + first).flatten(), self.d.flatten(0, 1))
        return full.reshape(n, -1)

    def built(self, shape: torch.Size) -> Tensor:
        return self.full().reshape(-1, *shape)

    def prefers_full(self, inner: bool = False, weighted: bool = False) -> bool:
        return weighted

    def floats_a_row(self) -> int:
        _, t, c = self.d.shape
        return 2 * t * (t + c)

    def length(self) -> Tensor:
        same = (self.index[:, :, None] == self.index[:, None, :]).to(self.d)
        # The gradient of each position's entry, which as many positions share as look it up.
        entries = torch.bmm(same, self.d) / same.sum(2, keepdim=True).sqrt()
        return vector_norm(entries, dim=(1, 2))  # type: ignore[no-any-return]

    def inner(self, reference: Tensor) -> Tensor:
        return (reference[self.index] * self.d).flatten(1).sum(1)

    def weighted(self, weight: Tensor) -> Tensor:
        return Direct(self.built(weight.shape)).weighted(weight)

    def sketch(self, p: Projection, q: Projection) -> Tensor:
        right = self.d if q is None else self.d @ q.T
        if p is None:
            n, _, c = right.shape
            return Lookup(self.index, right, self.entries).full().reshape(n, self.entries * c)
        return (p.T[self.index].transpose(1, 2) @ right).flatten(1)

    def rows(self, block: slice | Tensor) -> Lookup:
        return Lookup(self.index[block], self.d[block], self.entries)

    def double(self) -> Lookup:
        return Lookup(self.index, self.d.double(), self.entries)

    def __len__(self) -> int:
        return len(self.d)


@dataclass(frozen=True)
class Direct:
    """G itself: biases, norm layers, what the fallback gives, and gradients that were built."""

    gradient: Tensor  # (n, *parameter shape), in any order in memory

    def full(self) -> Tensor:
        return self.gradient.flatten(1)

    def built(self, shape: torch.Size) -> Tensor:
        return self.gradient.reshape(-1, *shape)

    def prefers_full(self, inner: bool = False, weighted: bool = False) -> bool:
        return True

    def floats_a_row(self) -> int:
        return self.gradient[:1].numel()

    def length(self) -> Tensor:
        entries = self.gradient.permute(0, *self._axes()).flatten(1)
        return vector_norm(entries, dim=1)  # type: ignore[no-any-return]

    def inner(self, reference: Tensor) -> Tensor:
        axes = self._axes()
        return self.gradient.permute(0, *axes).flatten(1) @ reference.permute([i - 1 for i in axes]).flatten()

    def weighted(self, weight: Tensor) -> Tensor:
        return Direct(self.gradient.square()).inner(weight)

    def sketch(self, p: Projection, q: Projection) -> Tensor:
        n, r = self.gradient.shape[:2]
        if self.gradient.ndim == 2:  # a bias: one product for all rows instead of one a row
            return self.gradient if p is None else self.gradient @ p.T
        gradient, axes = self.gradient, self._axes()
        if q is not None and axes[0] == 1:
            gradient = gradient.permute(0, *axes)
            q = q.reshape(-1, *self.gradient.shape[2:]).permute(0, *(i - 1 for i in axes[1:])).flatten(1)
        matrix = gradient.reshape(n, r, -1)
        matrix = matrix if p is None else torch.bmm(p.expand(n, -1, -1), matrix)
        return (matrix if q is None else matrix @ q.T).flatten(1)

    def _axes(self) -> list[int]:
        """Return the axes after the first in the order in which they lie in memory, the outermost first."""
        return sorted(range(1, self.gradient.ndim), key=self.gradient.stride, reverse=True)

    def rows(self, block: slice | Tensor) -> Direct:
        return Direct(self.gradient[block])

    def double(self) -> Direct:
        return Direct(self.gradient.double())

    def __len__(self) -> int:
        return len(self.gradient)


def rooted(square: Tensor, summands: Tensor, precisely: Callable[[slice | Tensor], Tensor]) -> Tensor:
    """Return lengths by their squares, (n,), those of rows whose summands cancel found in double precision.

    Parameters
    ----------
    square : torch.Tensor, (n,)
        Which rounding may have left below zero.
    summands : torch.Tensor, (n,)
        The sum of the summands' own squares.
    precisely : callable
        Which rows -> their lengths, in double precision.
    """
    length = square.clamp_min(0).sqrt()
    if square.dtype == torch.float64 or square.device.type == "mps":
        return length
    if type(square) is not Tensor:  # while a graph is traced, in which no row may take a way of its own
        return precisely(slice(None)).to(square)
    few = (square < CANCELLED * summands).nonzero().squeeze(1)
    return length.index_copy(0, few, precisely(few).to(length)) if len(few) else length


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in half precision in float32, in which squares do not overflow; others as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


Rule = Callable[[nn.Module, Tensor, Tensor], Factors]


@dataclass(frozen=True)
class _Entry:
    rule: Rule
    when: Callable[[nn.Module], bool]


_RULES: dict[tuple[type[nn.Module], str], _Entry] = {}


def rule(
    *layers: type[nn.Module], parameter: str, when: Callable[[nn.Module], bool] = lambda layer: True
) -> Callable[[Rule], Rule]:
    """Return a decorator that registers how a parameter's per-sample gradient factors.

    The rule is called as ``rule(layer, a, d)`` with the layer's input `a` and the loss gradient `d` at its
    output, both with the rows first, and returns `Outer`, `Lookup` or `Direct`. It serves exactly
    the given types: a subclass may compute something else, so it needs a rule of its own.

    Parameters
    ----------
    *layers : type
        Module types.
    parameter : str
        The parameter's name in the layer, such as "weight", or a glob such as "weight_ih_l*".
    when : callable, optional
        Takes the layer; False leaves it to the fallback.
    """

    def register(function: Rule) -> Rule:
        for layer in layers:
            _RULES[layer, parameter] = _Entry(function, when)
        return function

    return register


def find_rule(layer: nn.Module, parameter: str) -> Rule | None:
    """Return the rule for one parameter of a layer, or None where there is none."""
    entry = _RULES.get((type(layer), parameter))
    if entry is None:
        globs = (
            one
            for (kind, glob), one in _RULES.items()
            if kind is type(layer) and fnmatchcase(parameter, glob)
        )
        entry = next(globs, None)
    return entry.rule if entry is not None and entry.when(layer) else None
