"""Where is computed, and with which digits: double precision where there is one, and single proper."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from anograd.target import undisturbed

WITHOUT_DOUBLE = frozenset({"mps"})  # kinds of devices


def finest(device: torch.device) -> torch.dtype:
    """Return float64, or float32 for a device that has nothing finer.

    Examples
    --------
    >>> finest(torch.device("cpu"))
    torch.float64
    """
    return torch.float32 if device.type in WITHOUT_DOUBLE else torch.float64


def at_home(*, unless: bool = False) -> AbstractContextManager[Any]:
    """Return a context in which new tensors are the CPU's, whatever device the caller has made the default.

    Parameters
    ----------
    unless : bool, default False
        Whether things stay as they are, for a network that was handed in and may rely on that default.
    """
    as_it_is = unless or torch.get_default_device().type == "cpu"
    return nullcontext() if as_it_is else torch.device("cpu")


@contextmanager
def precise(device: torch.device) -> Iterator[None]:
    """Let convolutions on a GPU compute in float32 proper, whatever the caller computes in.

    By default cuDNN may take TF32, which keeps three digits, and chooses anew for each size of a batch: a
    row's score would depend on the rows beside it.

    Parameters
    ----------
    device : torch.device
        On others than CUDA's only the caller's modes are left aside.
    """
    if device.type != "cuda":
        with undisturbed():
            yield
        return
    # From 2.9 on torch asks for precision operation by operation, and refuses a mixture of both ways.
    newer = getattr(torch.backends.cudnn, "conv", None)
    owner, name, value = (
        (newer, "fp32_precision", "ieee") if newer else (torch.backends.cudnn, "allow_tf32", False)
    )
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        with undisturbed():
            yield
    finally:
        setattr(owner, name, before)
