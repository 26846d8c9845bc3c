"""The networks anograd builds itself: convolutional and dense autoencoders, and a variational one.

Each keeps its decoder in ``up``, so that ``"up.*.weight"`` names the decoder's kernels in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

KERNEL, STRIDE = 4, 2
ENCODER_CHANNELS = (32, 32, 64, 64)
DECODER_CHANNELS = (64, 64, 32, 32)


class ConvAutoencoder(nn.Module):
    """GradCon's convolutional autoencoder, for any image size and number of channels.

    Four convolutions (4 x 4, stride 2, padding 2) down and four transposed ones up, ReLU between, a
    sigmoid at the end. At 28 x 28 it is the published network, layer for layer; at other sizes the
    decoder's paddings are chosen so that the output has the input's size.

    Parameters
    ----------
    channels : int
        Image channels C.
    height, width : int
        Image size in pixels.
    variational : bool, default False
        Add three square linear maps: mean, log variance and decoder input. The output is then
        (reconstruction, mean, log variance), and z is the mean in evaluation mode.

    Notes
    -----
    **Differs from the paper** only in sizes other than 28 x 28, which the paper does not treat.

    References
    ----------
    Kwon et al., "Backpropagated Gradient Representations for Anomaly Detection", ECCV 2020.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        *,
        variational: bool = False,
    ) -> None:
        super().__init__()
        down: list[nn.Module] = []
        for before, after in pairwise((channels, *ENCODER_CHANNELS)):
            down += [nn.Conv2d(before, after, KERNEL, STRIDE, padding=2), nn.ReLU()]
        up: list[nn.Module] = []
        heights, widths = decoder_sizes(height), decoder_sizes(width)
        for i, (before, after) in enumerate(pairwise((*DECODER_CHANNELS, channels))):
            (pad_h, extra_h), (pad_w, extra_w) = (fit_padding(s[i], s[i + 1]) for s in (heights, widths))
            layer = nn.ConvTranspose2d(before, after, KERNEL, STRIDE, (pad_h, pad_w), (extra_h, extra_w))
            up += [layer, nn.ReLU()]
        up[-1] = nn.Sigmoid()
        self.down = nn.Sequential(*down)
        self.up = nn.Sequential(*up)
        self.latent = (ENCODER_CHANNELS[-1], heights[0], widths[0])
        if variational:
            size = self.latent[0] * self.latent[1] * self.latent[2]
            self.mean, self.log_variance, self.expand = (nn.Linear(size, size) for _ in range(3))
        self.variational = variational

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction (n, C, H, W); of a VAE (reconstruction, mean, log variance)."""
        code = self.down(x)
        if not self.variational:
            return self.up(code)  # type: ignore[no-any-return]
        mean, log_variance = self.mean(code.flatten(1)), self.log_variance(code.flatten(1))
        z = mean
        if self.training:
            noise = torch.randn(mean.shape)  # drawn on the CPU, where training seeds the generator
            z = mean + noise.to(mean) * (0.5 * log_variance).exp()
        return self.up(self.expand(z).view(-1, *self.latent)), mean, log_variance


class DenseAutoencoder(nn.Module):
    """An autoencoder of linear layers for tables: ReLU between, nothing after the last.

    Parameters
    ----------
    features : int
        Input features p.
    hidden : sequence of int
        Widths of the encoder's layers, the code last; the decoder mirrors them.
    """

    def __init__(self, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = (features, *hidden)
        self.down = _dense(widths, last=nn.ReLU())
        self.up = _dense(widths[::-1], last=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction, (n, p)."""
        return self.up(self.down(x))  # type: ignore[no-any-return]


def _dense(widths: Sequence[int], last: nn.Module | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    layers[-1:] = [last] if last is not None else []
    return nn.Sequential(*layers)


def encoder_size(size: int) -> int:
    """Return the side of the code for an image side, after the four convolutions."""
    for _ in ENCODER_CHANNELS:
        size = size // 2 + 1
    return size


def decoder_sizes(size: int) -> tuple[int, int, int, int, int]:
    """Return the image sides through the decoder, code first: (3, 4, 8, 14, 28) at 28, as published."""
    third = -(-size // 2)
    second = third // 2 + 1
    return encoder_size(size), -(-second // 2), second, third, size


def fit_padding(before: int, after: int) -> tuple[int, int]:
    """Return (padding, output_padding) with which a transposed convolution maps side `before` to `after`."""
    excess = STRIDE * (before - 1) + KERNEL - after
    padding = -(-excess // 2)
    return padding, 2 * padding - excess
