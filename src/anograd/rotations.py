"""An autoencoder that also tells how an image was turned: what is up, and what shows it, is learned, too."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anograd.losses import mse
from anograd.networks import ConvAutoencoder

TURNS = 4  # quarters
BODY = (32, 32, 64)  # channels
GROUPS = 8
LEAST = 8  # pixels, which three halvings leave one of


class RotationAutoencoder(ConvAutoencoder):
    """GradCon's convolutional autoencoder beside a classifier that tells how an image was turned.

    The two share nothing but the loss, reconstruction error plus cross entropy over the four turns of an
    image: ``up`` is the decoder, ``head`` the classifier's last layer. Of images that are not square the
    classifier sees the middle.

    Parameters
    ----------
    channels : int
        Image channels C.
    height, width : int
        Image size in pixels, 8 at least.

    Raises
    ------
    ValueError
        For smaller images.

    References
    ----------
    Gidaris, Singh, Komodakis: Unsupervised representation learning by predicting image rotations. ICLR 2018,
    arXiv:1803.07728. Golan, El-Yaniv: Deep anomaly detection using geometric transformations. NeurIPS 2018,
    arXiv:1805.10917.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__(channels, height, width)
        self.side = min(height, width)
        if self.side < LEAST:
            raise ValueError(
                f"of images of {height} x {width} pixels it cannot be told how they were turned, which "
                f"takes {LEAST} x {LEAST}: write target='cae'"
            )
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *BODY)):
            # No ReLU: its kinks would have rows computed again, and no gradient that is read jumps there.
            layers += [nn.Conv2d(before, after, 4, 2, padding=1), nn.GroupNorm(GROUPS, after), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(BODY[-1], TURNS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the reconstruction (n, C, H, W), and the logits (n, 4, 4) of each turn of each image."""
        reconstruction = self.up(self.down(x))
        found = self.body(turned(_middle(x, self.side)).flatten(0, 1)).mean((2, 3))
        return reconstruction, self.head(found.view(len(x), TURNS, BODY[-1]))

    def loss(self, output: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        """Return each row's mean squared error plus its mean cross entropy over the turns, (n,)."""
        reconstruction, logits = output
        told = F.log_softmax(logits, 2) * torch.eye(TURNS).to(logits)  # each turn's own
        return mse(reconstruction, x) - told.sum((1, 2)) / TURNS


def turned(x: Tensor) -> Tensor:
    """Return square images (n, C, S, S) turned by no, one, two and three quarters, (n, 4, C, S, S)."""
    across = x.transpose(2, 3)
    return torch.stack([x, across.flip(2), x.flip(2, 3), across.flip(3)], dim=1)


def _middle(x: Tensor, side: int) -> Tensor:
    top, left = (x.shape[2] - side) // 2, (x.shape[3] - side) // 2
    return x[:, :, top : top + side, left : left + side]
