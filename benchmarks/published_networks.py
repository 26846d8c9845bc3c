"""How many weights the networks have that GradCon's paper compares itself with: built here, and counted.

``python benchmarks/published_networks.py``. Counted are AnoGAN's generator and discriminator, and of LSA the
encoder, the decoder and those weights of the density network that its masks let through. Nothing is trained.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

import record
from anograd.bench.rivals import anogan
from anograd.networks import ConvAutoencoder

NAME = "published_networks"


def weights(*networks: nn.Module) -> int:
    """Return how many numbers the networks are trained to."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def dcgan(channels: int, width: int = 64, code: int = 100) -> int:
    """Return the weights of AnoGAN's DCGAN for images of 64 x 64 (Radford et al. 2016)."""
    widths = [width * 2**i for i in range(4)]
    up = [nn.ConvTranspose2d(code, widths[3], 4, bias=False), nn.BatchNorm2d(widths[3])]
    for wide, narrow in pairwise(reversed(widths)):
        up += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1, bias=False), nn.BatchNorm2d(narrow)]
    up += [nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False)]
    down: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1, bias=False)]
    for narrow, wide in pairwise(widths):
        down += [nn.Conv2d(narrow, wide, 4, 2, 1, bias=False), nn.BatchNorm2d(wide)]
    down += [nn.Conv2d(widths[3], 1, 4, bias=False)]
    return weights(*up, *down)


def lsa(side: int = 28, code: int = 64, bins: int = 100) -> int:
    """Return the weights of LSA's network for MNIST (Abati et al. 2019): autoencoder and code density."""
    deepest = 64 * (side // 4) ** 2
    encoder = [
        *_halving(1, 32),
        *_halving(32, 64),
        nn.Linear(deepest, 64),
        nn.BatchNorm1d(64),
        nn.Linear(64, code),
    ]
    decoder = [
        nn.Linear(code, 64), nn.BatchNorm1d(64), nn.Linear(64, deepest), nn.BatchNorm1d(deepest),
        *_doubling(64, 32), *_doubling(32, 16), nn.Conv2d(16, 1, 1, bias=False),
    ]  # fmt: skip
    before, upto = code * (code - 1) // 2, code * (code + 1) // 2  # codes that a code's density may depend on
    density = before * 32 + 3 * upto * 32 * 32 + upto * 32 * bins + (4 * 32 + bins) * code
    return weights(*encoder, *decoder) + density


def _halving(inside: int, outside: int) -> list[nn.Module]:
    """Return a residual block that halves an image's sides."""
    return [
        nn.Conv2d(inside, outside, 3, 2, 1, bias=False), nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
        nn.Conv2d(inside, outside, 1, 2, bias=False), *(nn.BatchNorm2d(outside) for _ in range(3)),
    ]  # fmt: skip


def _doubling(inside: int, outside: int) -> list[nn.Module]:
    """Return a residual block that doubles an image's sides."""
    return [
        nn.ConvTranspose2d(inside, outside, 5, 2, 2, 1, bias=False),
        nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
        nn.ConvTranspose2d(inside, outside, 1, 2, output_padding=1, bias=False),
        *(nn.BatchNorm2d(outside) for _ in range(3)),
    ]  # fmt: skip


def main() -> None:
    ours = weights(ConvAutoencoder(1, 28, 28))
    counts = {
        "GradCon's CAE": ours,
        "GradCon's VAE": weights(ConvAutoencoder(1, 28, 28, variational=True)),
        "AnoGAN as published: DCGAN, 64 x 64": dcgan(1),
        "LSA as published": lsa(),
        "AnoGAN as measured here, 28 x 28": weights(*anogan.build((1, 28, 28), 64)),
    }
    for network, count in counts.items():
        line = {"network": network, "weights": count, "times_cae": round(count / ours, 2)}
        if not record.done(NAME, line):
            record.write(NAME, line)


if __name__ == "__main__":
    main()
