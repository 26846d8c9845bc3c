"""Gradient quantities -> representation: how each row's gradient points."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from anograd.constraint import COSINE_FLOOR
from anograd.gradients import PerSample


def cosine(found: PerSample, reference: Mapping[str, Tensor]) -> Tensor:
    """Return the cosine between each row's gradient and the reference, (n, l), high = aligned, in -1..1.

    Parameters
    ----------
    found : PerSample
        From ``per_sample(target, x, ("norm", "inner"), reference=reference)``.
    reference : mapping of str to torch.Tensor
        The same reference. A zero gradient or a zero reference has cosine 0.

    Returns
    -------
    torch.Tensor, (n, l)
        One column a parameter, in the order of ``found.layers``.

    References
    ----------
    Kwon et al., "Backpropagated Gradient Representations for Anomaly Detection", ECCV 2020.

    Examples
    --------
    >>> from torch import nn
    >>> from anograd import Target, per_sample
    >>> net, x = nn.Linear(2, 2, bias=False), torch.eye(2)
    >>> reference = {"weight": per_sample(Target.adopt(net), x[:1], ("full",)).full.reshape(2, 2)}
    >>> found = per_sample(Target.adopt(net), x, ("norm", "inner"), reference=reference)
    >>> torch.allclose(cosine(found, reference)[0], torch.ones(1))
    True
    """
    if found.norm is None or found.inner is None:
        raise ValueError("a cosine is made of 'norm' and 'inner': per_sample(..., want=('norm', 'inner'))")
    lengths = torch.stack([reference[name].norm() for name in found.layers]).to(found.norm)
    return found.inner / (found.norm * lengths).clamp_min(COSINE_FLOOR)
