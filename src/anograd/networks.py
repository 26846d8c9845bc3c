"""The networks anograd builds itself: convolutional and dense autoencoders, a variational one, a classifier.

Autoencoders keep their decoder in ``up``, so that ``"up.*.weight"`` names its kernels in all of them.
GradCon's come first, R2-AD2's, which have dropout and give logits, after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL, STRIDE = 4, 2
ENCODER_CHANNELS = (32, 32, 64, 64)
DECODER_CHANNELS = (64, 64, 32, 32)
OF_TABLES = ("dense", "masked")
DARKEST = 1e-2  # a mean that still has a gradient


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

    @torch.no_grad()
    def start_at(self, rows: Tensor) -> None:
        """Let training begin at the mean of rows (n, C, H, W) in 0..1, each channel's: sets the last bias.

        Drawn as usual, the network often falls into all-black output on dark images within an epoch, where
        the sigmoid has no gradient left, and never comes out again.
        """
        last = self.up[-2]
        assert isinstance(last, nn.ConvTranspose2d)
        assert last.bias is not None
        last.bias.copy_(rows.mean((0, 2, 3)).clamp(DARKEST, 1 - DARKEST).logit())


class DenseAutoencoder(nn.Module):
    """An autoencoder of linear layers for tables: ReLU between, nothing after the last.

    Parameters
    ----------
    features : int
        Input features p.
    hidden : sequence of int
        Widths of the encoder's layers, the code last; the decoder mirrors them.
    linear_code : bool, default False
        Leave out the code's ReLU, which in a narrow code often switches off all units for all rows.
    """

    def __init__(self, features: int, hidden: Sequence[int], *, linear_code: bool = False) -> None:
        super().__init__()
        widths = (features, *hidden)
        self.down = _dense(widths, last=None if linear_code else nn.ReLU())
        self.up = _dense(widths[::-1], last=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction, (n, p)."""
        return self.up(self.down(x))  # type: ignore[no-any-return]

    @torch.no_grad()
    def is_dead(self, rows: Tensor) -> bool:
        """Tell whether rows (n, p) all have the same code, so that nothing of them reaches the decoder.

        A layer of one or two units is often below the ReLU's kink on all rows.
        """
        code = self.down(rows.to(next(self.parameters()).dtype))
        return bool((code == code[:1]).all())


def _dense(widths: Sequence[int], last: nn.Module | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    layers[-1:] = [last] if last is not None else []
    return nn.Sequential(*layers)


class DropoutAutoencoder(nn.Module):
    """R2-AD2's autoencoder for tables: linear layers, ReLU and dropout between, logits at the end.

    There is no dropout after the code. The sigmoid is left to the loss, "bce_with_logits", whose gradient
    stays linear in the residual where a sigmoid saturates and where a row lies outside 0..1.

    Parameters
    ----------
    features : int
        Input features p.
    hidden : sequence of int
        Widths of the encoder's layers, the code last; the decoder mirrors them.
    dropout : float, default 0.4
        Share of the values dropped in training.

    Notes
    -----
    Kernels start Glorot-uniform and biases at zero, as in Keras.

    **Differs from the paper** in the seventh digit: Keras adds 1e-7 to the probabilities in its cross
    entropy, so that the published code's gradients shrink by 1e-7 / probability.

    References
    ----------
    Schulze et al., "R2-AD2: Detecting Anomalies by Analysing the Raw Gradient", ECML PKDD 2022.

    Examples
    --------
    >>> net = DropoutAutoencoder(6, (5, 3, 2))
    >>> sum(p.numel() for p in net.parameters())
    126
    """

    def __init__(self, features: int, hidden: Sequence[int], dropout: float = 0.4) -> None:
        super().__init__()
        widths = (features, *hidden)
        self.down = _dropping(widths, dropout)[:-1]
        self.up = _dropping(widths[::-1], dropout)[:-2]
        start_as_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the reconstruction, (n, p)."""
        return self.up(self.down(x))  # type: ignore[no-any-return]


class DropoutConvAutoencoder(nn.Module):
    """R2-AD2's convolutional autoencoder, for any image size and number of channels; gives logits.

    Two convolutions with max pooling and a dense code, then a dense layer, two transposed convolutions of
    stride 2 and a convolution between them. Whole channels are dropped, single values around the code.

    Parameters
    ----------
    channels : int
        Image channels C.
    height, width : int
        Image size in pixels.
    code : int, default 8
        Width of the code.
    dropout : float, default 0.4
        Share of the channels or values dropped in training.

    Notes
    -----
    Kernels start Glorot-uniform and biases at zero, as in Keras.

    **Differs from the paper** only in sizes that are no multiple of 4: pooling rounds up, and what the
    decoder makes too much is cut off at the end.

    References
    ----------
    Schulze et al., "R2-AD2: Detecting Anomalies by Analysing the Raw Gradient", ECML PKDD 2022.
    """

    def __init__(self, channels: int, height: int, width: int, code: int = 8, dropout: float = 0.4) -> None:
        super().__init__()
        maps = 8
        h, w = -(-height // 4), -(-width // 4)  # after the two poolings
        first = (h + 1, w + 1)  # one more, which the unpadded convolution takes off again
        self.down = nn.Sequential(
            nn.Conv2d(channels, maps, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
            nn.Dropout2d(dropout),
            nn.Conv2d(maps, maps, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
            nn.Dropout2d(dropout),
            nn.Flatten(), nn.Linear(maps * h * w, code), nn.ReLU(), nn.Dropout(dropout),
        )  # fmt: skip
        self.up = nn.Sequential(
            nn.Linear(code, maps * first[0] * first[1]), nn.ReLU(), nn.Dropout(dropout),
            nn.Unflatten(1, (maps, *first)),
            nn.ConvTranspose2d(maps, maps, 3, stride=2), Crop(2 * first[0], 2 * first[1]), nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(maps, maps, 3), nn.ReLU(), nn.Dropout2d(dropout),
            nn.ConvTranspose2d(maps, channels, 3, stride=2), Crop(height, width),
        )  # fmt: skip
        start_as_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the reconstruction, (n, C, H, W)."""
        return self.up(self.down(x))  # type: ignore[no-any-return]


class ClusterClassifier(nn.Module):
    """A classifier of the clusters that normal rows fall into, for scores that read a classifier.

    Parameters
    ----------
    features : int
        Numbers of a row, flattened.
    classes : int
        Clusters.
    hidden : sequence of int
        Widths of the layers before the last.

    Attributes
    ----------
    centres : torch.Tensor, (classes, features)
        Of the clusters; the nearest one is a row's class.
    """

    centres: Tensor

    def __init__(self, features: int, classes: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(classes, features))
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise((features, *hidden)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear((features, *hidden)[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the clusters, (n, classes)."""
        return self.head(self.body(x))  # type: ignore[no-any-return]

    def loss(self, output: Tensor, x: Tensor) -> Tensor:
        """Return the cross entropy of each row's logits to its cluster, (n,)."""
        nearest = torch.cdist(x.flatten(1), self.centres.to(x)).argmin(1)
        return F.cross_entropy(output, nearest, reduction="none")


class Crop(nn.Module):
    """Cuts images to a size at their lower and right ends.

    After an unpadded transposed convolution of stride 2 this is what Keras calls "same".

    Parameters
    ----------
    height, width : int
        The size to cut to.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        """Return the upper left part, (n, C, height, width)."""
        return x[..., : self.height, : self.width]


def choose_kind(kind: str, shape: tuple[int, ...], images: str) -> str:
    """Return the kind of network for rows of this shape, "auto" resolved: one for tables or one for images.

    Parameters
    ----------
    kind : str
        "auto", "dense", "masked", or a kind for images.
    shape : tuple of int
        Of one row: (p,) or (C, H, W).
    images : str
        The kind that "auto" takes for images.

    Raises
    ------
    ValueError
        For rows that are neither a table's nor images, or not of the kind asked for.
    """
    if kind == "auto":
        kind = "dense" if len(shape) == 1 else images
    if len(shape) > 3:
        raise ValueError(
            f"a row has shape {shape}, but networks that are made here take tables (n, p) or images "
            f"(n, C, H, W): hand over your own, target=Target.adopt(net), or give the depth as channels, "
            f"X = X.reshape(len(X), -1, *X.shape[-2:])"
        )
    if kind in OF_TABLES and len(shape) != 1:
        raise ValueError(f"target={kind!r} takes tables, but a row has shape {shape}: write {images!r}")
    if kind not in OF_TABLES and len(shape) != 3:
        raise ValueError(
            f"target={kind!r} takes images (n, C, H, W), but a row has shape {shape}: "
            f"write target='dense' for a table"
        )
    return kind


def start_as_keras(module: nn.Module) -> None:
    """Draw every linear and convolution kernel anew, Glorot-uniform, and set the biases to zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _dropping(widths: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
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
