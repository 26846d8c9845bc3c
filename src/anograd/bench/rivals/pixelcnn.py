"""PixelCNN: how unlikely an image is, each pixel given those above it and to its left."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anograd.bench.entrants import Entrant, Fitted, Known, Rows
from anograd.bench.rivals.network import naming, score_by, step, weights
from anograd.detectors.paper import Paper
from anograd.train import seeded

RATE = 1e-3

PAPER = Paper(
    title="Pixel Recurrent Neural Networks",
    authors="Aäron van den Oord, Nal Kalchbrenner, Koray Kavukcuoglu",
    venue="ICML",
    year=2016,
    arxiv="1601.06759",
    differences=(
        "five residual layers of 32 channels, and grey values in 16 levels instead of 256",
        "the channels of a pixel are taken as independent given the pixels before it",
        "plain masked convolutions, which do not see some of the pixels to the upper right",
    ),
    limits=("simple images are likely whatever they show: an empty one scores as normal",),
)


class MaskedConv(nn.Conv2d):
    """A convolution that reads only pixels before the one in question, in reading order.

    Parameters
    ----------
    before, after : int
        Channels.
    size : int
        Of the kernel, odd.
    itself : bool
        Whether the pixel in question is read, too: in every layer but the first.
    """

    mask: Tensor

    def __init__(self, before: int, after: int, size: int, *, itself: bool) -> None:
        super().__init__(before, after, size, padding=size // 2)
        order = torch.arange(size * size).reshape(size, size)
        middle = size * size // 2
        self.register_buffer("mask", (order < middle + itself).float())

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved images, (n, C, H, W)."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PixelCNN(nn.Module):
    """Gives logits of each pixel's level, (n, levels, C, H, W).

    Parameters
    ----------
    images : int
        Channels of the images.
    channels : int
        Of each layer.
    depth : int
        Layers between the first and the last.
    levels : int
    """

    def __init__(self, images: int, channels: int, depth: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.first = MaskedConv(images, channels, 7, itself=False)
        self.middle = nn.ModuleList(MaskedConv(channels, channels, 3, itself=True) for _ in range(depth))
        self.last = nn.Conv2d(channels, images * levels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits for images (n, C, H, W) with values in 0..1."""
        hidden = self.first(2 * x - 1)
        for layer in self.middle:
            hidden = hidden + layer(hidden.relu())
        logits: Tensor = self.last(hidden.relu())
        return logits.reshape(len(x), -1, self.levels, *x.shape[2:]).transpose(1, 2)

    def unlikelihood(self, x: Tensor) -> Tensor:
        """Return the negative log likelihood of each image in bits a pixel, (n,), high = anomalous."""
        level = (x * self.levels).long().clamp(0, self.levels - 1)
        shown = (level / (self.levels - 1)).float()
        return F.cross_entropy(self(shown), level, reduction="none").flatten(1).mean(1) / math.log(2)


def fit_pixelcnn(
    X: Rows,
    y: Known,
    *,
    seed: int,
    epochs: int = 5,
    channels: int = 32,
    depth: int = 5,
    levels: int = 16,
    batch: int = 32,
) -> Fitted:
    """Return the negative log likelihood of an image as score.

    Parameters
    ----------
    X : ndarray of float32, (n, C, H, W)
        Images with values in 0..1.
    y : ndarray of int8, (n,)
        Not learned from.
    seed : int
    epochs : int, default 5
    channels : int, default 32
        Of each layer.
    depth : int, default 5
        Layers between the first and the last.
    levels : int, default 16
        Grey values that are told apart.
    batch : int, default 32
    """
    with seeded(seed):
        network = PixelCNN(X.shape[1], channels, depth, levels)
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        for _ in range(epochs):
            for index in torch.split(torch.randperm(len(X)), batch):
                loss = network.unlikelihood(torch.tensor(X[index.numpy()])).mean()
                step(optimizer, loss)
    return Fitted({"score": score_by(network.unlikelihood)}, weights(network))


ENTRANTS = {
    "pixelcnn": Entrant(
        naming(fit_pixelcnn),
        "PixelCNN",
        "five residual layers of 32 channels, 16 grey levels, five epochs",
        rows="images",
        paper=PAPER,
    )
}
