"""Why a row scores as it does: what its score loses where a part of it is put right.

Each part is put right by itself, and left wrong by itself while all others are put right; the mean of what
the two change is the part's contribution. Where the score is a sum over parts that is each one's own share;
where parts act together, neither the first nor the last to be put right gets all of it: these are the two
ends of a Shapley value. Contributions need not add up to the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
NOTHING = 1e-9  # of the largest contribution: no more than rounding
AT_ONCE = 2048  # rows scored at once


@dataclass(frozen=True)
class Explanation:
    """Why rows score as they do. Every number is in units of the score: above 0 makes a row more anomalous.

    Attributes
    ----------
    scores : ndarray, (n,)
        High = anomalous.
    features : ndarray, (n, p) or (n, C, H, W)
        What each column or pixel contributes.
    names : tuple of str
        The columns' names, where rows are those of a table.
    expected : ndarray, (n, ...)
        What each column or pixel would be in a normal row like this one: in a column's own unit, or the
        name of a level; pixels as the network reads them, 0..1.
    parts : ndarray, (n, l)
        What the loss, and each layer's gradient, contribute.
    part_names : tuple of str
    nearest : ndarray of int64, (n, 3), optional
        Of the normal rows that were given, those whose gradients are nearest, by number, nearest first;
        (n, m) where only m < 3 were given.
    """

    scores: Floats
    features: Floats
    names: tuple[str, ...]
    expected: NDArray[Any]
    parts: Floats
    part_names: tuple[str, ...]
    nearest: NDArray[np.int64] | None = None

    def top(self, row: int, count: int = 5) -> list[tuple[str, Any, float]]:
        """Return the columns that make a row anomalous: name, expected value, contribution; largest first.

        Parameters
        ----------
        row : int
        count : int, default 5
            At most; columns that make the row less anomalous, and those that do nothing but for rounding, are
            left out.
        """
        shares = self.features[row].ravel()
        least = NOTHING * np.abs(shares).max(initial=0.0)
        order = [int(i) for i in np.argsort(-shares, kind="stable")[:count] if shares[i] > least]
        names = self.names or tuple(map(str, range(shares.size)))
        return [(names[i], self.expected[row].ravel()[i], float(shares[i])) for i in order]


def contributions(
    score: Callable[[Tensor], Tensor], rows: Tensor, expected: Tensor, groups: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what each group of entries contributes to each row's score, (n, g), and the scores, (n,).

    Parameters
    ----------
    score : callable
        From rows (m, ...) to scores (m,), high = anomalous.
    rows : torch.Tensor, (n, ...)
    expected : torch.Tensor, (n, ...)
        The same rows, put right.
    groups : torch.Tensor of int64, of the shape of one row
        The group of each entry, 0 to g - 1.

    Examples
    --------
    >>> rows, expected = torch.tensor([[3.0, 1.0, 5.0]]), torch.zeros(1, 3)
    >>> found, scores = contributions(lambda x: x.sum(1), rows, expected, torch.tensor([0, 0, 1]))
    >>> found.tolist(), scores.tolist()
    ([[4.0, 5.0]], [9.0])
    """
    count = int(groups.max()) + 1
    wrong, right = score(rows), score(expected)
    found = wrong.new_zeros(len(rows), count)
    several = max(1, AT_ONCE // max(1, len(rows)))
    for some in torch.split(torch.arange(count, device=groups.device), several):
        chosen = (groups == some.view(-1, *[1] * groups.dim())).unsqueeze(1)  # (groups, 1, ...)
        repaired = torch.where(chosen, expected, rows).flatten(0, 1)
        alone = torch.where(chosen, rows, expected).flatten(0, 1)
        loses = wrong - score(repaired).view(len(some), -1)
        gains = score(alone).view(len(some), -1) - right
        found[:, some] = ((loses + gains) / 2).T
    return found, wrong


def patches(shape: Sequence[int], side: int) -> Tensor:
    """Return the number of the patch that each pixel lies in, of the shape (C, H, W); channels share patches.

    Parameters
    ----------
    shape : sequence of int
        (C, H, W) or more axes; the last two are cut up.
    side : int
        Of a patch, in pixels.

    Examples
    --------
    >>> patches((1, 2, 4), 2)
    tensor([[[0, 0, 1, 1],
             [0, 0, 1, 1]]])
    """
    *leading, height, width = shape
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    grid = rows[:, None] * math.ceil(width / side) + columns
    return grid.expand(*leading, height, width).contiguous()


def spread(found: Tensor, groups: Tensor, difference: Tensor) -> Tensor:
    """Return groups' contributions spread over their entries, (n, ...), by how far each is from expected.

    Parameters
    ----------
    found : torch.Tensor, (n, g)
    groups : torch.Tensor of int64, of the shape of one row
    difference : torch.Tensor, (n, ...)
        Of the row and what was expected.
    """
    weight = difference.double().square().flatten(1)
    index = groups.flatten().expand(len(weight), -1)
    total = weight.new_zeros(len(weight), found.shape[1]).scatter_add_(1, index, weight)
    size = torch.bincount(groups.flatten(), minlength=found.shape[1]).double()
    of_all = total.gather(1, index)
    share = torch.where(
        of_all > 0, weight / of_all.clamp_min(torch.finfo(weight.dtype).tiny), 1 / size[groups.flatten()]
    )
    return (found.double().gather(1, index) * share).reshape(difference.shape)


def nearest(rows: Tensor, others: Tensor, count: int) -> Tensor:
    """Return the numbers of the nearest of the others to each row, (n, count), nearest first.

    Parameters
    ----------
    rows, others : torch.Tensor, (n, k) and (m, k)
    count : int
        Or m, if there are fewer.
    """
    found = [torch.cdist(piece, others) for piece in torch.split(rows, AT_ONCE)]
    return torch.cat(found).topk(min(count, len(others)), largest=False).indices
