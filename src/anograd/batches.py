"""Rows in batches, and what happens where the memory does not suffice for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ON_THE_PROCESSOR = "can't allocate memory"  # what PyTorch says there; it has a type of its own for GPUs only


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that there is no memory left, of the processor or of a GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ON_THE_PROCESSOR in str(error)
    )


def in_batches(function: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> tuple[Tensor, int]:
    """Return what a function gives for batches of rows, joined, and the size of a batch that sufficed.

    Where the memory does not suffice for a batch, it is tried again with half as many rows, and so are all
    after it. So `function` must give a row the same whatever rows stand beside it.

    Parameters
    ----------
    function : callable
        From rows (b, ...) to a tensor (b, ...), which is kept.
    rows : torch.Tensor, (n, ...)
    size : int
        Rows of a batch, at most.

    Raises
    ------
    MemoryError
        It does not suffice for one row.
    """
    found: list[Tensor] = []
    start = 0
    while not found or start < len(rows):
        batch = rows[start : start + size]
        try:
            found.append(function(batch))
            start += len(batch)
            continue
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(batch) < 2:
                shape = tuple(rows.shape[1:])
                raise MemoryError(f"the memory does not suffice for one row of shape {shape}") from error
        # Not before the error is gone, which holds on to what the batch took.
        size = len(batch) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return torch.cat(found), size


@contextmanager
def naming_the_batch(size: Any, checkpoint: Any) -> Iterator[None]:
    """Turn an error for want of memory while fitting into one that says what to change.

    A step is not taken with fewer rows by itself: that would be another fit than the one that was asked for.

    Parameters
    ----------
    size : int, str or None
        The `batch_size` that was asked for.
    checkpoint : path or None
        The file from which the fit goes on.

    Raises
    ------
    MemoryError
        With the line to change.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        there = checkpoint is not None and Path(checkpoint).exists()
        kept = f" and remove {str(checkpoint)!r}, which was written with the larger one" if there else ""
        smaller = max(1, size // 2) if isinstance(size, int) else 16
        raise MemoryError(
            f"the memory did not suffice for the fit (batch_size={size!r}): "
            f"write batch_size={smaller}{kept}, or fit on fewer rows, or with device='cpu'"
        ) from error
