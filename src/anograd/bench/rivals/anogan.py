"""AnoGAN: how far a row is from the nearest one that a generator makes, searched for by gradient descent.

GradCon's paper counts 6,338,176 weights for AnoGAN. This network is smaller, `width` sets its size, and the
weights that are reported are its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anograd.bench.entrants import Entrant, Fitted, Known, Rows
from anograd.bench.rivals.network import naming, score_by, step, weights
from anograd.detectors.paper import Paper
from anograd.train import seeded

LATENT = 32
RATE, BETAS = 2e-4, (0.5, 0.999)
SLOPE = 0.2  # of leaky ReLU below zero
SEARCHED_AT_ONCE = 32

PAPER = Paper(
    title="Unsupervised Anomaly Detection with Generative Adversarial Networks to Guide Marker Discovery",
    authors="Thomas Schlegl, Philipp Seeböck, Sebastian M. Waldstein, Ursula Schmidt-Erfurth, Georg Langs",
    venue="IPMI",
    year=2017,
    arxiv="1703.05921",
    differences=(
        "a small network for images, two convolutions in each half, and a dense one for tables",
        "batch norm in the generator only",
        "100 steps of the search in place of 500, by Adam at a rate that falls to zero",
        "the search starts at the best of 64 latent points, the same 64 for all rows, not at one drawn",
    ),
    limits=("each row that is scored costs a search: hundreds of passes through both networks",),
)


class Discriminator(nn.Module):
    """Tells rows from made ones, by features that the search reads, too.

    Parameters
    ----------
    features : torch.nn.Module
        From rows (n, ...) to features (n, ...).
    count : int
        Of the features of a row.
    """

    def __init__(self, features: nn.Module, count: int) -> None:
        super().__init__()
        self.features = features
        self.last = nn.Linear(count, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of each row, (n,), high = taken for a real one."""
        logits: Tensor = self.last(self.features(x).flatten(1))
        return logits.squeeze(1)


def build(shape: Sequence[int], width: int) -> tuple[nn.Module, Discriminator]:
    """Return a generator, (n, latent) to (n, *shape) in 0..1, and a discriminator.

    Parameters
    ----------
    shape : sequence of int
        Of a row: (p,), or (C, H, W) with sides that four divides.
    width : int
        Units of the hidden layers, or channels of the images at a quarter of their side.
    """
    if len(shape) == 1:
        return _dense(shape[0], width)
    channels, high, wide = shape
    if high % 4 or wide % 4:
        raise ValueError(
            f"AnoGAN halves images twice, and these are {high} x {wide}: pad them to sides that four "
            "divides, or give it rows laid out as one line, X.reshape(len(X), -1)"
        )
    return _convolutional(channels, high // 4, wide // 4, width)


def _dense(p: int, width: int) -> tuple[nn.Module, Discriminator]:
    """Return both halves for rows of a table."""
    generator = nn.Sequential(
        *(nn.Linear(LATENT, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
        *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
        *(nn.Linear(width, p), nn.Sigmoid()),
    )
    features = nn.Sequential(
        *(nn.Linear(p, width), nn.LeakyReLU(SLOPE)),
        *(nn.Linear(width, width), nn.LeakyReLU(SLOPE)),
    )
    return generator, Discriminator(features, width)


def _convolutional(channels: int, high: int, wide: int, width: int) -> tuple[nn.Module, Discriminator]:
    """Return both halves for images of four times this height and width."""
    half = max(1, width // 2)
    generator = nn.Sequential(
        *(nn.Linear(LATENT, width * high * wide, bias=False), nn.Unflatten(1, (width, high, wide))),
        *(nn.BatchNorm2d(width), nn.ReLU()),
        nn.ConvTranspose2d(width, half, 4, 2, 1, bias=False),
        *(nn.BatchNorm2d(half), nn.ReLU()),
        *(nn.ConvTranspose2d(half, channels, 4, 2, 1), nn.Sigmoid()),
    )
    features = nn.Sequential(
        *(nn.Conv2d(channels, half, 4, 2, 1), nn.LeakyReLU(SLOPE)),
        *(nn.Conv2d(half, width, 4, 2, 1), nn.LeakyReLU(SLOPE)),
    )
    return generator, Discriminator(features, width * high * wide)


def latent(n: int) -> Tensor:
    """Return n latent points, drawn evenly from -1..1, (n, latent)."""
    return 2 * torch.rand(n, LATENT) - 1


def play(
    generator: nn.Module, discriminator: Discriminator, rows: Tensor, *, epochs: int, batch: int
) -> None:
    """Train both against each other, and leave them frozen.

    Parameters
    ----------
    generator : torch.nn.Module
    discriminator : Discriminator
    rows : torch.Tensor, (n, ...)
    epochs : int
    batch : int
        As many rows are made for each step.
    """
    maker = torch.optim.Adam(generator.parameters(), lr=RATE, betas=BETAS)
    judge = torch.optim.Adam(discriminator.parameters(), lr=RATE, betas=BETAS)
    for _ in range(epochs):
        for index in torch.split(torch.randperm(len(rows)), batch):
            made = generator(latent(batch))
            real, false = discriminator(rows[index]), discriminator(made.detach())
            step(judge, F.softplus(-real).mean() + F.softplus(false).mean())
            step(maker, F.softplus(-discriminator(made)).mean())
    for half in (generator, discriminator):
        half.eval().requires_grad_(False)


class Search:
    """Finds for each row the latent point of the most similar row that a frozen generator makes.

    Parameters
    ----------
    generator : torch.nn.Module
    discriminator : Discriminator
    points : torch.Tensor, (k, latent)
        Each row starts at the best of them.
    share : float
        Of the difference of features in the loss; the rest is the difference of the rows themselves.
    steps : int
    rate : float
        Of Adam at the first step; it falls to zero.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: Discriminator,
        points: Tensor,
        *,
        share: float,
        steps: int,
        rate: float,
    ) -> None:
        self.generator, self.features = generator, discriminator.features
        self.share, self.steps, self.rate = share, steps, rate
        self.points = points
        with torch.no_grad():
            made = generator(points)
            self.made, self.described = made.flatten(1), self.features(made).flatten(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the loss at the point found for each row, (n,), high = anomalous.

        Parameters
        ----------
        x : torch.Tensor, (n, ...)
        """
        # A search can make much of a last digit, and that depends on how many rows are multiplied at once:
        # a short piece is filled up with its own rows, so that a row has one score alone and among others.
        found = [
            self._search(piece[torch.arange(SEARCHED_AT_ONCE) % len(piece)])[: len(piece)]
            for piece in torch.split(x, SEARCHED_AT_ONCE)
        ]
        return torch.cat(found)

    def _search(self, x: Tensor) -> Tensor:
        rows, wanted = x.flatten(1), self.features(x).flatten(1)

        def loss(points: Tensor) -> Tensor:
            made: Tensor = self.generator(points)
            residual = (made.flatten(1) - rows).abs().sum(1)
            difference: Tensor = (self.features(made).flatten(1) - wanted).abs().sum(1)
            return (1 - self.share) * residual + self.share * difference

        apart = (1 - self.share) * torch.cdist(rows, self.made, p=1)
        apart = apart + self.share * torch.cdist(wanted, self.described, p=1)
        points = self.points[apart.argmin(1)].requires_grad_()
        # Adam moves each number by its own gradient, and the sum keeps that of a row from the other rows.
        optimizer = torch.optim.Adam([points], lr=self.rate)
        for at in range(self.steps):
            optimizer.param_groups[0]["lr"] = self.rate * (1 - at / self.steps)
            with torch.enable_grad():
                step(optimizer, loss(points).sum())
        return loss(points.detach())


def fit_anogan(
    X: Rows,
    y: Known,
    *,
    seed: int,
    epochs: int = 20,
    width: int = 64,
    batch: int = 64,
    share: float = 0.1,
    steps: int = 100,
    rate: float = 0.1,
    starts: int = 64,
) -> Fitted:
    """Return the loss at the nearest row that can be made as score.

    Parameters
    ----------
    X : ndarray of float32, (n, p) or (n, C, H, W)
        Scaled to 0..1; the sides of images are multiples of four.
    y : ndarray of int8, (n,)
        Not learned from.
    seed : int
    epochs : int, default 20
    width : int, default 64
        Units of the hidden layers, or channels of the images at a quarter of their side.
    batch : int, default 64
    share : float, default 0.1
        Of the difference of the discriminator's features in the loss of the search; the paper's lambda.
    steps : int, default 100
        Of the search for a row's latent point.
    rate : float, default 0.1
        Of the first of these steps.
    starts : int, default 64
        Latent points, of which each row starts at the best.
    """
    rows = torch.tensor(X)
    with seeded(seed):
        generator, discriminator = build(rows.shape[1:], width)
        play(generator, discriminator, rows, epochs=epochs, batch=batch)
        points = latent(starts)
    search = Search(generator, discriminator, points, share=share, steps=steps, rate=rate)
    return Fitted({"score": score_by(search)}, weights(generator, discriminator))


ENTRANTS = {
    "anogan": Entrant(
        naming(fit_anogan),
        "AnoGAN",
        "20 epochs, 64 channels or units, lambda 0.1, 100 steps from the best of 64 starts",
        rows="any",
        paper=PAPER,
    )
}
