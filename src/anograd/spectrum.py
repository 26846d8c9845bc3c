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
    return (_whole if features <= MOST_FEATURES else _sampled)(pieces, features, device, centred)


def _whole(
    pieces: Iterable[Tensor], features: int, device: torch.device, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    count = 0
    total = torch.zeros(features, dtype=torch.float64, device=device)
    products = torch.zeros(features, features, dtype=torch.float64, device=device)
    for piece in pieces:
        count += len(piece)
        total += piece.sum(0, dtype=torch.float64)
        products += piece.T @ piece  # float32 within a piece will do
    mean = total / count
    moments = products / count
    variance, axes = torch.linalg.eigh(moments - torch.outer(mean, mean) if centred else moments)
    return variance.clamp_min(0).flip(0), axes.flip(1), mean


def _sampled(
    pieces: Iterable[Tensor], features: int, device: torch.device, centred: bool
) -> tuple[Tensor, Tensor, Tensor]:
    drawn: list[Tensor] = []
    for piece in pieces:
        drawn.append(piece)
        if sum(map(len, drawn)) >= SAMPLE:
            break
    sample = torch.cat(drawn)[:SAMPLE].to(device, torch.float64)
    mean = sample.mean(0)
    _, scale, axes = torch.linalg.svd(sample - mean if centred else sample, full_matrices=False)
    return scale.square() / len(sample), axes.T, mean
