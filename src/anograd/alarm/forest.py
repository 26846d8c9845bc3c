"""A forest beside the alarm networks: one randomised tree for each of many small, balanced samples.

A tree learns from all known anomalies and from a few times as many normal rows, drawn anew. Where anomalies
hide among the rows that pass for normal, hardly any is in a tree's sample, so that few of them are
taught as normal; and with a handful of known anomalies trees tell columns that matter from those that do not
sooner than networks do. Where none is known, made-up rows stand for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.tree import ExtraTreeClassifier
from torch import Tensor, nn

from anograd.train import seeded

# Chosen on development sets (benchmarks/development_sets.py), clean and contaminated ones together.
NORMAL_PER_KNOWN, FEWEST_NORMAL = 4, 64  # rows in a tree's sample
DEPTH = 12  # of a tree at most, and the steps of every walk


class Forest(nn.Module):
    """The mean log odds of a row over randomised trees; a walk is a few gathers, on any device.

    Parameters
    ----------
    columns : int
        Of a row.
    trees : int
    nodes : int
        Of all trees together, leaves among them.

    Attributes
    ----------
    roots : torch.Tensor of int64, (trees,)
    column : torch.Tensor of int64, (nodes,)
        Which one a node asks for.
    threshold : torch.Tensor, (nodes,)
        float64. Rows above it go to the second child.
    child : torch.Tensor of int64, (2 * nodes,)
        Of node i at 2 i and 2 i + 1; both of a leaf are the leaf itself.
    odds : torch.Tensor, (nodes,)
        float64. Of a leaf, the logarithm of anomalous rows over normal ones, both as shares of their class.
    """

    roots: Tensor
    column: Tensor
    threshold: Tensor
    child: Tensor
    odds: Tensor

    def __init__(self, columns: int, trees: int, nodes: int) -> None:
        super().__init__()
        self.columns = columns
        self.register_buffer("roots", torch.zeros(trees, dtype=torch.int64))
        self.register_buffer("column", torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(nodes, dtype=torch.float64))
        self.register_buffer("child", torch.zeros(2 * nodes, dtype=torch.int64))
        self.register_buffer("odds", torch.zeros(nodes, dtype=torch.float64))
        self.register_load_state_dict_post_hook(_check)  # type: ignore[no-untyped-call]

    @classmethod
    def grow(cls, normal: Tensor, known: Tensor, trees: int, seed: int) -> Self:
        """Return a forest that learned to tell known anomalies, or made-up rows, from normal rows.

        Parameters
        ----------
        normal : torch.Tensor, (m, p)
            What trees draw their normal rows from: four for each known anomaly, and 64 at least.
        known : torch.Tensor, (a, p)
            Every tree learns from all of them; where there are none, from as many made-up rows as
            normal ones, drawn anew.
        trees : int
        seed : int

        References
        ----------
        Geurts, Ernst, Wehenkel: Extremely randomized trees. Machine Learning 63, 2006: the trees. Balanced
        samples: Chen, Liaw, Breiman: Using random forest to learn imbalanced data. 2004.
        """
        normal, known = normal.cpu().float(), known.cpu().float()
        drawn = min(len(normal), max(FEWEST_NORMAL, NORMAL_PER_KNOWN * len(known)))
        odd = np.repeat([1, 0], [len(known) or drawn, drawn])
        # Both classes weigh the same.
        weight = np.where(odd, drawn / odd.sum(), 1.0)
        grown = []
        with seeded(seed):
            for _ in range(trees):
                own = normal[torch.randperm(len(normal))[:drawn]]
                sample = torch.cat([known if len(known) else made_up(normal, drawn), own]).numpy()
                grown.append(_grown(sample, odd, weight, int(torch.randint(2**31 - 1, ()))))
        return cls.joined(grown)

    @classmethod
    def joined(cls, forests: Sequence[Forest]) -> Self:
        """Return one forest of all the trees of several."""
        starts = np.cumsum([0, *(len(one.odds) for one in forests)])
        made = cls(forests[0].columns, sum(len(one.roots) for one in forests), int(starts[-1]))
        for name, shifted in (
            ("roots", True), ("column", False), ("threshold", False), ("child", True), ("odds", False),
        ):  # fmt: skip
            parts = [
                getattr(one, name) + (int(start) if shifted else 0)
                for one, start in zip(forests, starts, strict=False)
            ]
            getattr(made, name).copy_(torch.cat(parts))
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean log odds, (n,) float64, high = anomalous, of rows x (n, p)."""
        at = self.roots.unsqueeze(0).expand(len(x), -1)
        for _ in range(DEPTH):
            above = x.gather(1, self.column[at]) > self.threshold[at]
            at = self.child[2 * at + above.to(at.dtype)]
        return self.odds[at].mean(1)


def made_up(normal: Tensor, count: int) -> Tensor:
    """Return (count, p) in which each number is from another row, or anywhere in its column's range."""
    others = torch.randint(len(normal), (count, normal.shape[1]))
    swapped = normal.gather(0, others)
    low, high = normal.aminmax(dim=0)
    anywhere = torch.lerp(low, high, torch.rand(count, normal.shape[1]))
    return torch.where(torch.rand(count, normal.shape[1]) < 0.5, swapped, anywhere)


def _check(forest: Forest, keys: object) -> None:
    """Raise ValueError where a stored forest leads astray: to a node or a column that there is not."""
    nodes = len(forest.odds)
    for places, most in ((forest.roots, nodes), (forest.child, nodes), (forest.column, forest.columns)):
        if not 0 <= int(places.min()) <= int(places.max()) < most:
            raise ValueError(f"a forest of {nodes:,} nodes on {forest.columns:,} columns points beyond them")


def _grown(
    sample: NDArray[np.float32], odd: NDArray[np.int64], weight: NDArray[np.float64], state: int
) -> Forest:
    """Return a forest of one tree, leaves leading to themselves."""
    fitted = ExtraTreeClassifier(max_features="sqrt", max_depth=DEPTH, random_state=state)
    tree = fitted.fit(sample, odd, sample_weight=weight).tree_
    leaf = fitted.apply(sample)
    normal = int((odd == 0).sum())
    shares = [np.bincount(leaf, weight * (odd == of) / normal, tree.node_count) for of in (1, 0)]
    own = np.arange(tree.node_count)
    ends = tree.children_left < 0
    children = np.stack([tree.children_left, tree.children_right], axis=1)
    made = Forest(sample.shape[1], 1, tree.node_count)
    made.column.copy_(torch.from_numpy(np.where(ends, 0, tree.feature)))
    made.threshold.copy_(torch.from_numpy(np.where(ends, 0.0, tree.threshold)))
    made.child.copy_(torch.from_numpy(np.where(ends[:, None], own[:, None], children).ravel()))
    # One row more in each class: a leaf without rows of a class is not certain.
    made.odds.copy_(torch.from_numpy(np.log((shares[0] + 1 / normal) / (shares[1] + 1 / normal))))
    return made
