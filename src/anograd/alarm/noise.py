"""Rows that are nothing: what an alarm network learns to call anomalous when few anomalies are known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Noise = Callable[[int], Tensor]  # how many rows -> (count, *shape)


def gaussian(shape: tuple[int, ...]) -> Noise:
    """Return noise from N(0.5, 1) in each input, not clipped: R2-AD2's, for inputs scaled to 0..1.

    References
    ----------
    Schulze et al., "R2-AD2: Detecting Anomalies by Analysing the Raw Gradient", ECML PKDD 2022.
    """
    return lambda count: torch.randn(count, *shape) + 0.5


def uniform(shape: tuple[int, ...]) -> Noise:
    """Return noise that is uniform in the box 0..1 of the inputs."""
    return lambda count: torch.rand(count, *shape)


def permuted(rows: Tensor) -> Noise:
    """Return normal rows (m, *shape) in which a random share of the inputs comes from other rows.

    Each input keeps its own distribution, and what is lost is how inputs go together.
    """
    flat = rows.reshape(len(rows), -1)

    def draw(count: int) -> Tensor:
        whose = torch.randint(len(flat), (count,))
        others = torch.randint(len(flat), (count, flat.shape[1]))
        swapped = torch.rand(count, flat.shape[1]) < torch.rand(count, 1)
        mixed = torch.where(swapped, flat[others, torch.arange(flat.shape[1])], flat[whose])
        return mixed.reshape(count, *rows.shape[1:])

    return draw


def stretched(noise: Tensor, rows: Tensor) -> Tensor:
    """Return noise for inputs scaled to 0..1 as it is for rows like these, (m, *shape), which are not.

    0..1 becomes the range of each column; of rows of several axes, such as images, that of all inputs
    together, so that a pixel at the border that is black in all rows gets noise, too.
    """
    axes = (0,) if rows.ndim == 2 else tuple(range(rows.ndim))
    low, high = rows.amin(axes), rows.amax(axes)
    return torch.lerp(low, high, noise.to(rows.dtype))


KINDS = ("gaussian", "uniform", "permuted")


def make(kind: str, rows: Tensor) -> Noise:
    """Return the noise of a kind for rows like these normal ones, (m, *shape).

    Parameters
    ----------
    kind : {"gaussian", "uniform", "permuted"}
    rows : torch.Tensor, (m, *shape)
    """
    shape = tuple(rows.shape[1:])
    return {"gaussian": gaussian(shape), "uniform": uniform(shape), "permuted": permuted(rows)}[kind]
