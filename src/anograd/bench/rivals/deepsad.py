"""Deep SAD: an encoder draws rows to a centre and pushes known anomalies away from it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from anograd.bench.entrants import Entrant, Fitted, Known, Rows
from anograd.bench.rivals.network import naming, score_by, step, weights
from anograd.detectors.paper import Paper
from anograd.train import seeded

DECAY = 1e-6
NEAREST = 0.1  # no entry of the centre is nearer to zero: weights of zero must not reach it
LEAST = 1e-6

PAPER = Paper(
    title="Deep Semi-Supervised Anomaly Detection",
    authors="Lukas Ruff, Robert A. Vandermeulen, Nico Görnitz, Alexander Binder, Emmanuel Müller, "
    "Klaus-Robert Müller, Marius Kloft",
    venue="ICLR",
    year=2020,
    arxiv="1906.02694",
    differences=(
        "network, epochs and batch size are those of ADBench, one network for all tables",
        "one learning rate throughout, the 1e-4 at which ADBench runs, in place of 1e-3 and then 1e-4",
        "images are laid out as one line; there is no convolutional encoder",
        "no known normal rows: what is not a known anomaly counts as unlabelled",
    ),
    limits=("without known anomalies it is Deep SVDD",),
)


def layers(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers without biases, with batch norm and leaky ReLU between them."""
    made: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        made += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after, eps=1e-4, affine=False)]
        made.append(nn.LeakyReLU())
    return nn.Sequential(*made, nn.Linear(widths[-2], widths[-1], bias=False))


def centre_of(codes: Tensor) -> Tensor:
    """Return the mean of the codes, entries near zero moved to the nearer of -0.1 and 0.1."""
    centre = codes.mean(0)
    sign = torch.where(centre < 0, -1.0, 1.0)
    return torch.where(centre.abs() < NEAREST, sign * NEAREST, centre)


def loss_of(distances: Tensor, y: Tensor, eta: float) -> Tensor:
    """Return the loss of each row, (n,): its squared distance, or eta over it for a known anomaly.

    Parameters
    ----------
    distances : torch.Tensor, (n,)
        Squared distances from the centre.
    y : torch.Tensor, (n,)
        1 marks a known anomaly.
    eta : float
    """
    return torch.where(y == 1, eta / (distances + LEAST), distances)


def fit_deepsad(
    X: Rows,
    y: Known,
    *,
    seed: int,
    hidden: Sequence[int] = (100, 20),
    code: int = 10,
    eta: float = 1.0,
    pretraining: int = 100,
    epochs: int = 50,
    batch: int = 128,
    rate: float = 1e-4,
) -> Fitted:
    """Return the squared distance from the centre as score.

    Parameters
    ----------
    X : ndarray of float32, (n, p)
        Scaled to 0..1.
    y : ndarray of int8, (n,)
    seed : int
    hidden : sequence of int, default (100, 20)
        Widths of the encoder.
    code : int, default 10
    eta : float, default 1
        Weight of the known anomalies.
    pretraining : int, default 100
        Epochs of the encoder as a part of an autoencoder, all rows alike.
    epochs : int, default 50
    batch : int, default 128
    rate : float, default 1e-4
        Of Adam, in pretraining and training. ADBench writes 1e-3 and a fall to a tenth that its
        scheduler makes before the first step.
    """
    rows, known = torch.tensor(X), torch.tensor(y)
    widths = (rows.shape[1], *hidden, code)
    with seeded(seed):
        encoder, decoder = layers(widths), layers(widths[::-1])
        autoencoder = nn.Sequential(encoder, decoder, nn.Sigmoid())
        optimizer = torch.optim.Adam(autoencoder.parameters(), lr=rate, weight_decay=DECAY)
        for index in batches(len(rows), batch, pretraining):
            x = rows[index]
            step(optimizer, (autoencoder(x) - x).square().mean())
        encoder.eval()
        with torch.no_grad():
            centre = centre_of(encoder(rows))
        encoder.train()
        optimizer = torch.optim.Adam(encoder.parameters(), lr=rate, weight_decay=DECAY)
        for index in batches(len(rows), batch, epochs):
            distances = (encoder(rows[index]) - centre).square().sum(1)
            step(optimizer, loss_of(distances, known[index], eta).mean())
    encoder.eval()
    return Fitted({"score": score_by(lambda x: (encoder(x) - centre).square().sum(1))}, weights(encoder))


def batches(n: int, size: int, epochs: int) -> list[Tensor]:
    """Return the numbers of the rows of each batch, over all epochs; a row on its own is left out.

    Parameters
    ----------
    n : int
    size : int
    epochs : int
    """
    drawn = [index for _ in range(epochs) for index in torch.split(torch.randperm(n), size)]
    return [index for index in drawn if len(index) > 1]


ENTRANTS = {
    "deepsad": Entrant(
        naming(fit_deepsad),
        "DeepSAD",
        "ADBench's: encoder 100-20-10, 100 epochs of pretraining and 50 of training, rate 1e-4, eta 1",
        known="used",
        paper=PAPER,
    )
}
