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

    Outside of the directions nothing varies: of fewer rows than half the features, r is their number.

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
        self.features, self.centred, self.device, self.count = features, centred, device, 0
        self.drawn: list[Tensor] = []  # pieces that are not among the sums
        self.sums: tuple[Tensor, Tensor] | None = None  # of features and of their products

    @property
    def full(self) -> bool:
        """Tell whether further rows would not count."""
        return self.features > MOST_FEATURES and self.count >= SAMPLE

    def add(self, piece: Tensor) -> None:
        """Take rows (b, features) in."""
        self.count += len(piece)
        self.drawn.append(piece)
        # Rows by themselves are decomposed sooner than a covariance of far more features than there are rows.
        if self.features <= MOST_FEATURES and 2 * self.count > self.features:
            self._sum()

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return variances, directions and the mean, as `spectrum` does."""
        if self.sums is None:
            return self._of_sample(torch.cat(self.drawn)[:SAMPLE].to(self.device, torch.float64))
        mean, moments = (one / self.count for one in self.sums)
        variance, axes = torch.linalg.eigh(moments - torch.outer(mean, mean) if self.centred else moments)
        return variance.clamp_min(0).flip(0), axes.flip(1), mean

    def _sum(self) -> None:
        if self.sums is None:
            zeros = torch.zeros(self.features, dtype=torch.float64, device=self.device)
            self.sums = zeros, torch.outer(zeros, zeros)
        total, products = self.sums
        for piece in self.drawn:
            total += piece.sum(0, dtype=torch.float64)
            products += piece.T @ piece  # float32 within a piece will do
        self.drawn.clear()

    def _of_sample(self, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = sample.mean(0)
        _, scale, axes = torch.linalg.svd(sample - mean if self.centred else sample, full_matrices=False)
        return scale.square() / len(sample), axes.T, mean
