"""The seeded sketch: a linear map from a parameter's gradient to a few numbers.

A parameter of shape (r, ...) counts as an r x c matrix G, a vector as r x 1. Its sketch is the
flattened P G Q', with P (p, r) and Q (q, c) drawn once from the seed and the parameter's name. Because the
map has two factors, a gradient that is itself a product can be sketched without being built.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

MOST_ENTRIES = 2**27  # of a projection: 1 GiB


@dataclass(frozen=True)
class Sketch:
    """A random projection of each parameter's gradient to at most `size` numbers.

    Entries are Gaussian with variances 1/p and 1/q, so the squared length of a sketch has the
    gradient's squared length as its mean. A parameter with at most `size` entries, or a side that is
    already small enough, is kept as it is. The projection of a parameter depends on the seed and its
    name alone: choosing other layers, another device or another batch does not change it.

    Parameters
    ----------
    size : int, default 64
        Numbers kept a parameter, at most.
    seed : int, default 0
        Draws the projection.
    """

    size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a sketch keeps at least one number a parameter, but size={self.size}")

    def sides(self, shape: torch.Size) -> tuple[int, int]:
        """Return (p, q), the numbers of rows and columns that are kept of a parameter of this shape."""
        r, c = matrix_shape(shape)
        if r * c <= self.size:
            return r, c
        q = min(c, math.isqrt(self.size))
        p = min(r, self.size // q)
        return p, min(c, self.size // p)

    def projections(self, name: str, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return P (p, r) and Q (q, c) for the parameter `name`, each None where nothing is to be reduced."""
        return _draw(self, name, like.shape, like.dtype, like.device)


def matrix_shape(shape: torch.Size) -> tuple[int, int]:
    """Return (r, c): how a parameter of this shape is read as a matrix."""
    rows = shape[0] if len(shape) else 1
    return rows, shape.numel() // max(rows, 1)


@lru_cache(maxsize=512)
def _draw(
    sketch: Sketch, name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    # Always drawn in float64 on the CPU, so that every device and dtype sees the same numbers.
    # The CPU generator takes 32 bits of seed.
    generator = torch.Generator("cpu").manual_seed(zlib.crc32(f"{sketch.seed}/{name}".encode()))

    def gaussian(kept: int, full: int) -> Tensor | None:
        if kept == full:
            return None
        if kept * full > MOST_ENTRIES:
            raise ValueError(
                f"a sketch of size {sketch.size} projects {name!r}, {tuple(shape)}, by a matrix of {kept:,} "
                f"x {full:,} numbers: choose a smaller size, or the full gradient"
            )
        drawn = torch.randn(kept, full, generator=generator, dtype=torch.float64, device="cpu") / math.sqrt(
            kept
        )
        return drawn.to(device=device, dtype=dtype)

    (r, c), (p, q) = matrix_shape(shape), sketch.sides(shape)
    return gaussian(p, r), gaussian(q, c)
