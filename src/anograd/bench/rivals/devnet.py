"""DevNet: a network whose score of known anomalies shall lie far above what chance gives."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from anograd.bench.entrants import Entrant, Fitted, Known, Rows
from anograd.bench.rivals.network import naming, parted, score_by, step, weights
from anograd.detectors.paper import Paper
from anograd.networks import start_as_keras
from anograd.train import seeded

MARGIN = 5.0
PRIOR = 5000  # draws of N(0, 1) that say what chance gives
RATE, DECAY, LONGEST = 1e-3, 1e-2, 1.0

PAPER = Paper(
    title="Deep Anomaly Detection with Deviation Networks",
    authors="Guansong Pang, Chunhua Shen, Anton van den Hengel",
    venue="KDD",
    year=2019,
    arxiv="1911.08623",
    differences=(
        "the draws of the prior are made once a fit, as in the published code",
        "all known anomalies are learned from, where the published runs took 30 and added unlabelled ones",
    ),
    limits=("known anomalies of one kind say little of another",),
)


def deviation_loss(scores: Tensor, y: Tensor, prior: Tensor) -> Tensor:
    """Return the mean loss: normal rows shall score as the prior's mean, anomalies 5 deviations above.

    Parameters
    ----------
    scores : torch.Tensor, (n,)
    y : torch.Tensor, (n,)
        1 marks a known anomaly.
    prior : torch.Tensor
        What scores by chance look like.
    """
    deviation = (scores - prior.mean()) / prior.std(correction=0)
    return torch.where(y == 1, (MARGIN - deviation).clamp_min(0), deviation.abs()).mean()


def fit_devnet(
    X: Rows, y: Known, *, seed: int, hidden: int = 20, epochs: int = 50, steps: int = 20, batch: int = 512
) -> Fitted:
    """Return the network's output as score, of the epoch with the lowest loss.

    Parameters
    ----------
    X : ndarray of float32, (n, p)
    y : ndarray of int8, (n,)
    seed : int
    hidden : int, default 20
        Units of the one hidden layer.
    epochs : int, default 50
    steps : int, default 20
        Of an epoch.
    batch : int, default 512
        Half of it known anomalies, drawn with replacement.
    """
    normal, known = parted(X, y)
    half = batch // 2
    labels = torch.arange(2 * half) // half
    least = float("inf")
    with seeded(seed):
        hidden_layer = nn.Linear(normal.shape[1], hidden)
        network = nn.Sequential(hidden_layer, nn.ReLU(), nn.Linear(hidden, 1))
        start_as_keras(network)
        prior = torch.randn(PRIOR)
        optimizer = torch.optim.RMSprop(network.parameters(), lr=RATE, alpha=0.9, eps=1e-7)
        kept = copy.deepcopy(network.state_dict())
        for _ in range(epochs):
            total = 0.0
            for _ in range(steps):
                rows = [group[torch.randint(len(group), (half,))] for group in (normal, known)]
                loss = deviation_loss(network(torch.cat(rows)).squeeze(1), labels, prior)
                loss = loss + DECAY * hidden_layer.weight.square().sum()
                step(optimizer, loss, LONGEST)
                total += loss.item()
            if total < least:
                least, kept = total, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return Fitted({"score": score_by(lambda x: network(x).squeeze(1))}, weights(network))


ENTRANTS = {
    "devnet": Entrant(
        naming(fit_devnet),
        "DevNet",
        "the published code's: one hidden layer of 20 units, margin 5, 50 epochs of 20 steps of 512 rows",
        known="needed",
        paper=PAPER,
    )
}
