"""PReNet: pairs of rows, and how many of the two are known anomalies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anograd.bench.entrants import Entrant, Fitted, Known, Rows
from anograd.bench.rivals.network import naming, parted, score_by, step, weights
from anograd.detectors.paper import Paper
from anograd.train import seeded

BOTH, ONE, NONE = 8.0, 4.0, 0.0  # what a pair shall score, by how many known anomalies it holds
RATE, DECAY = 1e-3, 1e-2

PAPER = Paper(
    title="Deep Weakly-supervised Anomaly Detection",
    authors="Guansong Pang, Chunhua Shen, Huidong Jin, Anton van den Hengel",
    venue="KDD",
    year=2023,
    arxiv="1910.13601",
    differences=(
        "settings are those of ADBench's version",
        "the partners of a row are drawn once a fit, the same ones for all rows, so that scores repeat",
    ),
    limits=(
        "its head is linear in the pair, so partners move all scores alike: it ranks as a network of one row",
    ),
)


class PairNetwork(nn.Module):
    """Scores pairs of rows, (n,): high = both anomalous.

    Parameters
    ----------
    columns : int
    hidden : int
        Features of each row, made by the same layer on either side.
    """

    def __init__(self, columns: int, hidden: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(columns, hidden), nn.ReLU())
        self.relation = nn.Linear(2 * hidden, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the scores of the pairs, (n,), for rows (n, p) on either side."""
        found: Tensor = self.relation(torch.cat([self.features(left), self.features(right)], 1))
        return found.squeeze(1)

    def mean_over(self, lefts: Tensor, rows: Tensor, rights: Tensor) -> Tensor:
        """Return the mean of (left, row) plus that of (row, right) over all lefts and rights, (n,)."""
        first = [self(left.expand_as(rows), rows) for left in lefts]
        second = [self(rows, right.expand_as(rows)) for right in rights]
        return torch.stack(first).mean(0) + torch.stack(second).mean(0)


def pairs(normal: Tensor, known: Tensor, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch of pairs, left and right, and what each shall score; drawn with replacement.

    Half of them are two unmarked rows, a quarter a known anomaly and an unmarked row, a quarter two known
    anomalies.

    Parameters
    ----------
    normal, known : torch.Tensor, (n, p)
    batch : int
    """

    def draw(rows: Tensor, count: int) -> Tensor:
        return rows[torch.randint(len(rows), (count,))]

    quarter = batch // 4
    none = batch - 2 * quarter
    left = torch.cat([draw(normal, none), draw(known, 2 * quarter)])
    right = torch.cat([draw(normal, none), draw(normal, quarter), draw(known, quarter)])
    wanted = torch.tensor([NONE, ONE, BOTH]).repeat_interleave(torch.tensor([none, quarter, quarter]))
    return left, right, wanted


def train(
    normal: Tensor,
    known: Tensor,
    *,
    seed: int,
    hidden: int = 20,
    steps: int = 1000,
    batch: int = 512,
    partners: int = 30,
) -> tuple[PairNetwork, Tensor, Tensor]:
    """Return the trained network, and the partners for scores: known anomalies and unmarked rows.

    Parameters
    ----------
    normal, known : torch.Tensor, (n, p)
    seed, hidden, steps, batch, partners : int
        As for `fit_prenet`; steps of all epochs.
    """
    with seeded(seed):
        network = PairNetwork(normal.shape[1], hidden)
        optimizer = torch.optim.RMSprop(network.parameters(), lr=RATE, weight_decay=DECAY)
        for _ in range(steps):
            left, right, wanted = pairs(normal, known, batch)
            step(optimizer, (network(left, right) - wanted).abs().mean())
        lefts, rights = (rows[torch.randint(len(rows), (partners,))] for rows in (known, normal))
    return network, lefts, rights


def fit_prenet(
    X: Rows,
    y: Known,
    *,
    seed: int,
    hidden: int = 20,
    epochs: int = 50,
    steps: int = 20,
    batch: int = 512,
    partners: int = 30,
) -> Fitted:
    """Return as score what a row makes of pairs with known anomalies and with unmarked rows.

    Parameters
    ----------
    X : ndarray of float32, (n, p)
    y : ndarray of int8, (n,)
    seed : int
    hidden : int, default 20
        Features of a row.
    epochs : int, default 50
    steps : int, default 20
        Of an epoch.
    batch : int, default 512
        Pairs of a step.
    partners : int, default 30
        Of either kind, for a row that is scored.
    """
    normal, known = parted(X, y)
    network, lefts, rights = train(
        normal, known, seed=seed, hidden=hidden, steps=epochs * steps, batch=batch, partners=partners
    )
    return Fitted({"score": score_by(lambda x: network.mean_over(lefts, x, rights))}, weights(network))


ENTRANTS = {
    "prenet": Entrant(
        naming(fit_prenet),
        "PReNet",
        "ADBench's settings: 20 features, targets 0, 4 and 8, 50 epochs of 20 steps of 512 pairs",
        known="needed",
        paper=PAPER,
    )
}
