"""Gradient quantities -> representation: how each row's gradient points, and its way through training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from anograd.gradients import PerSample, Sketch, per_sample
from anograd.gradients.fallback import only_linear, stacked_gradients
from anograd.gradients.served import parse_memory
from anograd.target import Target

SHORTEST = 1e-18  # length: the square of a shorter one is lost in single precision
ROUNDED = 1e-6  # of the reference's length: what is so short may be nothing but rounding, and point anywhere
SKETCH = 32  # numbers a parameter; a gradient of at most SMALL numbers is taken as it is
SMALL = 256


def cosine(found: PerSample, reference: Mapping[str, Tensor]) -> Tensor:
    """Return the cosine between each row's gradient and the reference, (n, l), high = aligned, in -1..1.

    Parameters
    ----------
    found : PerSample
        From ``per_sample(target, x, ("norm", "inner"), reference=reference)``.
    reference : mapping of str to torch.Tensor
        The same reference. A zero gradient or a zero reference has cosine 0; that of a gradient less than a
        millionth as long as the reference shrinks with it.

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
    return angle(found.inner, found.norm, lengths)


def angle(inner: Tensor, lengths: Tensor, reference: Tensor) -> Tensor:
    """Return the cosines that go with inner products, in whatever units the lengths are, in -1..1.

    Parameters
    ----------
    inner, lengths : torch.Tensor, (n, l)
    reference : torch.Tensor, (l,)
        Lengths.

    Examples
    --------
    >>> angle(torch.tensor([3e-14]), torch.tensor([5e-7]), torch.tensor([1e-7]))
    tensor([0.6000])
    """
    lengths = torch.maximum(lengths, ROUNDED * reference)
    return (inner / (lengths.clamp_min(SHORTEST) * reference.clamp_min(SHORTEST))).clamp(-1, 1)


def choose_sketch(target: Target, size: int | str | None, seed: int) -> Sketch | None:
    """Return how gradients of a target are to be sketched; None: taken as they are.

    Parameters
    ----------
    target : Target
    size : int, None or "auto"
        Numbers kept of each parameter's gradient; "auto": 32, or None where all of it is at most 256 numbers.
    seed : int
        Draws the projection.
    """
    if size == "auto":
        size = None if entries(target, None) <= SMALL else SKETCH
    return None if size is None else Sketch(int(size), seed)


def entries(target: Target, sketch: Sketch | None) -> int:
    """Return how many numbers `checkpoint_gradients` finds of each row at each checkpoint, k.

    Parameters
    ----------
    target : Target
    sketch : Sketch or None
    """
    return sum(width(shape, sketch) for shape in target.shapes().values())


def width(shape: torch.Size, sketch: Sketch | None) -> int:
    """Return how many numbers stand for the gradient of a parameter, raw or sketched.

    Parameters
    ----------
    shape : torch.Size
        Of the parameter.
    sketch : Sketch or None
    """
    return shape.numel() if sketch is None else math.prod(sketch.sides(shape))


def checkpoint_gradients(
    targets: Sequence[Target], x: Tensor, sketch: Sketch | None = None, memory: str | int = "1GiB"
) -> Tensor:
    """Return each row's gradient at each checkpoint, (n, T, k): raw, or a sketch of it.

    Parameters
    ----------
    targets : sequence of Target
        One network at T moments of its training.
    x : torch.Tensor, (n, ...)
    sketch : Sketch, optional
        The same projection serves all checkpoints. None: the gradients as they are, all chosen
        parameters flattened and joined.
    memory : str or int, default "1GiB"
        As in `anograd.per_sample`.

    Notes
    -----
    Raw gradients of linear layers come from one batched pass over the stacked weights of all checkpoints,
    all else from a pass a checkpoint: each is the faster one there (docs/benchmarks.md).

    References
    ----------
    Schulze et al., "R2-AD2: Detecting Anomalies by Analysing the Raw Gradient", ECML PKDD 2022.

    Examples
    --------
    >>> from torch import nn
    >>> from anograd import Target
    >>> targets = [Target.adopt(nn.Linear(3, 3)), Target.adopt(nn.Linear(3, 3))]
    >>> checkpoint_gradients(targets, torch.rand(5, 3)).shape
    torch.Size([5, 2, 12])
    """
    if sketch is None and only_linear(targets[0].module):
        bytes_a_row = 3 * len(targets) * entries(targets[0], None) * x.element_size()
        rows = max(1, parse_memory(memory) // bytes_a_row)
        return torch.cat([stacked_gradients(targets, piece) for piece in torch.split(x, rows)])
    found = []
    for target in targets:
        if sketch is None:
            gradients = per_sample(target, x, ("full",), memory=memory).full
        else:
            gradients = per_sample(target, x, ("sketch",), sketch=sketch, memory=memory).sketch
        assert gradients is not None
        found.append(gradients)
    return torch.stack(found, dim=1)
