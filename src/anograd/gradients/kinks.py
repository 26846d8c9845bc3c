"""How near a row comes to a kink of the network, where the next digit decides what its gradient is.

A ReLU passes a gradient on or stops it by the sign of its input. Where that input is zero but for rounding,
two libraries, or two sizes of a batch, can decide differently, and the gradient jumps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from anograd.target import untraced


@contextmanager
def watching(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect, for each call of a ReLU, how near each row comes to zero, (n,): 0 at the kink.

    In units of the largest input that the row has there, which is what rounding goes by.

    Parameters
    ----------
    module : torch.nn.Module
        Its ReLUs are those that are modules, of exactly that type.
    """
    found: list[Tensor] = []

    def hook(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        inputs = args[0] if args else named["input"]
        if inputs.numel() and inputs.is_floating_point():
            size = inputs.detach().reshape(len(inputs), -1).abs()
            found.append(size.amin(1) / size.amax(1).clamp_min(torch.finfo(size.dtype).tiny))

    relus = [one for one in module.modules() if type(one) is nn.ReLU]
    hooks = [one.register_forward_pre_hook(untraced(hook), with_kwargs=True) for one in relus]
    try:
        yield found
    finally:
        for one in hooks:
            one.remove()


def nearest(found: list[Tensor], like: Tensor) -> Tensor:
    """Return the least of all distances, of the shape of `like`; infinite where no ReLU was called.

    Raises
    ------
    ValueError
        Where a ReLU was called with another axis first than the rows.
    """
    for one in found:
        if one.shape != like.shape:
            raise ValueError(
                f"how near a row comes to a kink is known where the rows come first in each nn.ReLU, but one "
                f"was called with {len(one)} of something for {len(like)} rows: leave 'kink' out of want"
            )
    return torch.stack(found).amin(0) if found else torch.full_like(like, torch.inf)
