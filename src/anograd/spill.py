"""Rows of numbers that need not fit into memory: kept in RAM within a budget, else in a temporary file."""

from __future__ import annotations

import errno
import math
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anograd.items import FLOAT


class Rows:
    """A matrix of rows of one shape, which is written once, block by block, and read in any order.

    What does not fit into the budget goes to a file without a name, which the system removes with the last
    process that has it open. It is read and written, not mapped: a mapped page counts as the
    process's memory once it was touched, and a full disk would kill the process instead of raising an error.

    Attributes
    ----------
    shape : tuple of int
        Of one row.
    spilled : bool
        Whether the rows are in a file.

    Examples
    --------
    >>> rows = Rows.allocate(1000, (3,), memory=2**20)
    >>> rows.write(0, torch.ones(1000, 3))
    >>> rows.take(torch.tensor([999, 0])).shape, rows.spilled
    (torch.Size([2, 3]), False)
    """

    shape: tuple[int, ...]
    spilled: bool

    def __init__(self, n: int, shape: tuple[int, ...], inside: Tensor | None) -> None:
        self.shape, self.spilled = shape, inside is None
        self._n = n
        self._bytes = FLOAT * math.prod(shape)
        if inside is not None:
            self._inside = inside
            return
        self._file = tempfile.TemporaryFile(mode="w+b", buffering=0)  # noqa: SIM115, closed by the next line
        weakref.finalize(self, self._file.close)

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Return rows that are the tensor itself, (n, *shape), of any dtype, in RAM."""
        return cls(len(tensor), tuple(tensor.shape[1:]), tensor)

    @classmethod
    def allocate(cls, n: int, shape: tuple[int, ...], memory: int) -> Self:
        """Return room for n float32 rows, to be filled by `write`.

        Parameters
        ----------
        n : int
        shape : tuple of int
            Of one row.
        memory : int
            Bytes up to which the rows stay in RAM.

        Raises
        ------
        OSError
            The folder for temporary files has no room for them; the message says what to do.
        """
        wanted = FLOAT * n * math.prod(shape)
        if wanted <= memory:
            return cls(n, shape, torch.empty((n, *shape)))
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < wanted:
            raise _no_room(errno.ENOSPC, f"{free:,} of the {wanted:,} bytes wanted are free")
        return cls(n, shape, None)

    def __len__(self) -> int:
        return self._n

    def write(self, start: int, block: Tensor) -> None:
        """Put rows (b, *shape) in the places from `start` on.

        Parameters
        ----------
        start : int
        block : torch.Tensor

        Raises
        ------
        OSError
            The disk is full; the message says what to do.
        """
        if not self.spilled:
            self._inside[start : start + len(block)] = block
            return
        if not block.numel():
            return
        left = memoryview(np.ascontiguousarray(block.cpu().float().numpy()).data).cast("B")
        try:
            self._file.seek(start * self._bytes)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise _no_room(error.errno or errno.EIO, error.strerror or str(error)) from error

    def take(self, index: Tensor | slice) -> Tensor:
        """Return rows, (b, *shape): a copy for an index, and what may be the rows themselves for a slice.

        Parameters
        ----------
        index : torch.Tensor of int64 (b,) in any order, or slice without a step
        """
        if not self.spilled:
            return self._inside[index]
        if isinstance(index, slice):
            start, stop, _ = index.indices(self._n)
            rows = np.empty((max(0, stop - start), *self.shape), dtype=np.float32)
            self._read(rows, start)
            return torch.from_numpy(rows)
        rows = np.empty((len(index), *self.shape), dtype=np.float32)
        for i, place in enumerate(index.tolist()):
            self._read(rows[i : i + 1], place)
        return torch.from_numpy(rows)

    def some(self, index: Tensor, device: torch.device) -> Tensor | Some:
        """Return some of the rows on a device: a tensor, or where they are in a file what reads them.

        Parameters
        ----------
        index : torch.Tensor of int64, (m,)
        device : torch.device
        """
        return Some(self, index, device) if self.spilled else self.take(index).to(device)

    def _read(self, rows: NDArray[np.float32], start: int) -> None:
        """Fill an array with the rows from `start` on."""
        if not rows.size:
            return
        left = memoryview(rows.data).cast("B")
        self._file.seek(start * self._bytes)
        while left:
            read = self._file.readinto(left)
            if not read:
                raise IndexError(f"row {start} is out of range: {self._n} rows were allocated and written")
            left = left[read:]


class Some:
    """Rows in a file, on a device, indexed as a tensor of them is: each is read whenever it is asked for.

    Parameters
    ----------
    rows : Rows
    index : torch.Tensor of int64, (m,)
        Which ones.
    device : torch.device

    Attributes
    ----------
    shape : tuple of int
        (m, ...).
    """

    def __init__(self, rows: Rows, index: Tensor, device: torch.device) -> None:
        self._rows, self._index, self.device = rows, index, device
        self.shape = (len(index), *rows.shape)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, places: Tensor | slice) -> Tensor:
        chosen = places if isinstance(places, slice) else places.to(self._index.device)
        return self._rows.take(self._index[chosen]).to(self.device)


def in_turn(x: Tensor | Some, size: int) -> Iterator[Tensor]:
    """Return rows in order, `size` of them at a time."""
    for start in range(0, len(x), size):
        yield x[start : start + size]


def _no_room(number: int, why: str) -> OSError:
    return OSError(
        number,
        f"the rows need more room in {tempfile.gettempdir()!r} than there is ({why}): set the environment "
        "variable TMPDIR to a folder with more room, or keep more rows in memory with a larger memory=",
    )
