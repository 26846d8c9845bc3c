"""Along which directions features of normal rows vary, and how much: from one pass over them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

MOST_FEATURES = 2048  # whose covariance is decomposed
SAMPLE = 2048  # rows that stand for all where there are more features


def spectrum(
    pieces: Iterable[Tensor], features: int, device: torch.device, *, centred: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Return variances (r,), descending, their orthonormal directions (features, r) and the mean, float64.

    Parameters
    ----------
    pieces : iterable of torch.Tensor, (b, features)
        Rows in random order. Where there are more than 2048 features, the first 2048 rows alone count,
        and r is their number at most: a covariance of so many features would take gigabytes.
    features : int
    device : torch.device
    centred : bool, default True
        Whether the mean is taken off; else second moments take the place of variances.
    """
    found = Spectrum(features, device, centred=centred)
    for piece in pieces:
        found.add(piece)
        if found.full:
            break
    return found.result()


class Spectrum:
    """The same, piece by piece: `add` pieces until it is `full` or there are no more; then the `result`.

    Parameters
    ----------
    features : int
    device : torch.device
    centred : bool, default True
        As in `spectrum`.
    """

    def __init__(self, features: int, device: torch.device, *, centred: bool = True) -> None:
        self.centred, self.device, self.count = centred, device, 0
        self.drawn: list[Tensor] | None = None if features <= MOST_FEATURES else []
        if self.drawn is None:
            self.total = torch.zeros(features, dtype=torch.float64, device=device)
            self.products = torch.zeros(features, features, dtype=torch.float64, device=device)

    @property
    def full(self) -> bool:
        """Tell whether further rows would not count."""
        return self.drawn is not None and self.count >= SAMPLE

    def add(self, piece: Tensor) -> None:
        """Take rows (b, features) in."""
        self.count += len(piece)
        if self.drawn is not None:
            self.drawn.append(piece)
            return
        self.total += piece.sum(0, dtype=torch.float64)
        self.products += piece.T @ piece  # float32 within a piece will do

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return variances, directions and the mean, as `spectrum` does."""
        if self.drawn is not None:
            return self._of_sample(torch.cat(self.drawn)[:SAMPLE].to(self.device, torch.float64))
        mean, moments = self.total / self.count, self.products / self.count
        variance, axes = torch.linalg.eigh(moments - torch.outer(mean, mean) if self.centred else moments)
        return variance.clamp_min(0).flip(0), axes.flip(1), mean

    def _of_sample(self, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = sample.mean(0)
        _, scale, axes = torch.linalg.svd(sample - mean if self.centred else sample, full_matrices=False)
        return scale.square() / len(sample), axes.T, mean
