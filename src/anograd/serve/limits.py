"""What one request may ask of the service."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

from anograd.gradients.served import parse_memory

MOST_EXPLAINED = 50  # rows: each is scored twice for each of its columns or patches
MOST_SHOWN = 1_000_000  # contributions in one answer
MOST_WAITING = 64  # requests that are being read or wait for their turn
MOST_CONNECTED = 500
PATIENCE = {"head": 10.0, "rest": 5.0, "answer": 30.0}  # seconds for what a sender owes: see `connection`


@dataclass(frozen=True)
class Limits:
    """What one request may ask for; more is refused with the status 413, and so is work that takes longer.

    A body that comes too slowly is refused with 408, and what only waited for others with 429.

    Parameters
    ----------
    rows : int
        Rows scored at most.
    bytes : int
        Of the body at most, counted while it is read.
    seconds : float
        For reading the body, and again for the wait and the work after it.

    Examples
    --------
    >>> Limits.of(100, "20MB", 5)
    Limits(rows=100, bytes=20971520, seconds=5)
    """

    rows: int = 10_000
    bytes: int = 20 * 2**20
    seconds: float = 30.0

    @classmethod
    def of(cls, rows: int, size: str, seconds: float) -> Self:
        """Return limits where the size is a text such as "20MB".

        Raises
        ------
        ValueError
            The text is no amount of memory.
        """
        try:
            return cls(rows, parse_memory(size), seconds)
        except ValueError as error:
            raise ValueError(f"{size!r} is no amount of memory: write it like 20MB or in bytes") from error

    def to_text(self) -> str:
        """Return the limits as text that `from_text` reads, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the limits that `to_text` wrote."""
        return cls(**json.loads(text))
