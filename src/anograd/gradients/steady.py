"""The engine's quantities, in double precision for the few rows that single precision cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from anograd.gradients.coupling import alike
from anograd.gradients.engine import Fold, PerSample, Reference, per_sample
from anograd.gradients.sketch import Sketch
from anograd.target import Target, forward_pass

# Of a ReLU's largest input: seven times what was seen to be rounded to the other side, in 30,000 images.
NEAR = 3e-7


def steady(
    target: Target,
    x: Tensor,
    want: Collection[str] = ("loss", "norm"),
    *,
    reference: Reference | Sequence[Reference] | None = None,
    weight: Reference | None = None,
    sketch: Sketch | None = None,
    fold: Fold | None = None,
    memory: str | int = "1GiB",
    unsure: Callable[[PerSample], Tensor] | None = None,
) -> PerSample:
    """Return what `anograd.per_sample` does, of a float32 network, as double precision would have it.

    Rows that come so near to the kink of a ReLU that rounding decides on which side they are, one to three in
    a hundred images, are computed again by a copy of the network in double precision.

    Parameters
    ----------
    target : Target
    x : torch.Tensor, (n, ...)
    want : collection of str
    reference : mapping of str to torch.Tensor, or a sequence of such, optional
    weight : mapping of str to torch.Tensor, optional
    sketch : Sketch, optional
    fold : callable, optional
    memory : str or int, default "1GiB"
    unsure : callable, optional
        Takes what was found and tells which other rows to compute again, (n,) bool. What has no text here
        is as in `anograd.per_sample`.
    """
    if set(want) == {"loss"}:  # which has no jumps
        return per_sample(target, x, want, memory=memory)
    how: dict[str, Any] = {"reference": reference, "weight": weight, "fold": fold, "memory": memory}
    if sketch is not None:
        how["sketch"] = sketch
    found = per_sample(target, x, {*want, "kink", "loss"}, **how)
    assert found.kink is not None
    doubtful = found.kink < NEAR
    if unsure is not None:
        doubtful = doubtful | unsure(found)
    rows = doubtful.nonzero().squeeze(1)
    if len(rows):
        exact = x[rows].double() if x.is_floating_point() else x[rows]
        again = per_sample(doubled(target), exact, {*want, "loss"}, **how)
        loss = _loss(found)[rows]
        if not alike(_loss(again), loss.double(), loss.dtype):  # a flag has changed, not the weights
            _DOUBLED.pop(target, None)
            again = per_sample(doubled(target), exact, want, **how)
        for name in want:
            own = getattr(found, name)
            own[rows] = getattr(again, name).to(own.dtype)
    return found


def _loss(found: PerSample) -> Tensor:
    assert found.loss is not None
    return found.loss


_DOUBLED: WeakKeyDictionary[Target, tuple[Any, Target]] = WeakKeyDictionary()


def doubled(target: Target) -> Target:
    """Return a target over a copy of the network in double precision, the same one until a weight changes."""
    with forward_pass(target):  # no other thread's hooks or stand-ins are copied
        state = tuple((one.data_ptr(), one._version) for one in target.module.state_dict().values())
        known = _DOUBLED.get(target)
        if known is None or known[0] != state:
            known = state, replace(target, module=deepcopy(target.module).double())
            _DOUBLED[target] = known
    return known[1]
