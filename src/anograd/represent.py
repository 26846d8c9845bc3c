"""Gradient quantities -> representation: how each row's gradient points."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

COSINE_FLOOR = 1e-8


def cosine(inner: Tensor, norm: Tensor, reference: Mapping[str, Tensor]) -> Tensor:
    """Return the cosine between each row's gradient and the reference, (n, l), high = aligned, in -1..1.

    Parameters
    ----------
    inner, norm : torch.Tensor, (n, l)
        From ``per_sample(target, x, ("norm", "inner"), reference=reference)``.
    reference : mapping of str to torch.Tensor
        In the order of the columns. A zero gradient or a zero reference has cosine 0.

    References
    ----------
    Kwon et al., "Backpropagated Gradient Representations for Anomaly Detection", ECCV 2020.

    Examples
    --------
    >>> cosine(torch.tensor([[3.0]]), torch.tensor([[5.0]]), {"w": torch.tensor([1.0, 0.0])})
    tensor([[0.6000]])
    """
    lengths = torch.stack([r.norm() for r in reference.values()]).to(norm)
    return inner / (norm * lengths).clamp_min(COSINE_FLOOR)
