"""Where rows come from: arrays and frames in memory, and Parquet and images, read piece by piece."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anograd.data import cells, number_of_rows
from anograd.detectors.rows import Encoder
from anograd.image_files import read_image
from anograd.reading import unread

CELLS = 2**20  # of a piece: some megabytes
FEWEST, MOST = 512, 32_768  # rows of a piece
READ = 8  # pieces read at once: as fast as the whole file, and held whatever the size of its row groups


@dataclass(frozen=True)
class Place:
    """How far a source has been read: rows, and bytes where those lead there faster."""

    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Piece:
    """Rows that follow each other in a source.

    Attributes
    ----------
    first : int
        Number of the first one.
    count : int
        How many rows of the source these are, those that could not be read among them.
    X : array or frame
        The rows that could be read.
    kept : sequence of int
        Which of the `count` rows they are.
    line : callable
        Number within the piece -> the row as it was given, as text.
    after : Place
        Where the source goes on.
    unread : dict of int to str
        Why each other row could not be read.
    """

    first: int
    count: int
    X: Any
    kept: Sequence[int]
    line: Callable[[int], str]
    after: Place
    unread: dict[int, str] = field(default_factory=dict)


class Source(Protocol):
    """Rows that come in pieces."""

    name: str

    def pieces(self, place: Place) -> Iterator[Piece]:
        """Return the pieces from a place on."""


class InMemory:
    """An array or frame.

    Parameters
    ----------
    name : str
        What messages call it.
    X : array or frame, (n, ...)
    size : int
        Rows of a piece.
    """

    def __init__(self, name: str, X: Any, size: int) -> None:
        self.name, self._X, self._size = name, X, size

    def pieces(self, place: Place) -> Iterator[Piece]:
        """Return the pieces from a place on."""
        for start in range(place.rows, number_of_rows(self._X), self._size):
            yield _piece(start, self._X[start : start + self._size])


class Pictures:
    """Images of a folder, of which no more are held than a piece has.

    Parameters
    ----------
    root : Path
    names : sequence of str
        Their paths within the folder.
    encoder : Encoder
        What the detector was fitted on.
    size : int
        Images of a piece.
    """

    def __init__(self, root: Path, names: Sequence[str], encoder: Encoder, size: int) -> None:
        self.name, self._root, self._names = repr(str(root)), root, names
        self._encoder, self._size = encoder, size

    def pieces(self, place: Place) -> Iterator[Piece]:
        """Return the pieces from a place on."""
        for start in range(place.rows, len(self._names), self._size):
            called = self._names[start : start + self._size]
            found: dict[int, NDArray[np.uint8]] = {}
            why: dict[int, str] = {}
            for i, name in enumerate(called):
                try:
                    image = read_image(self._root, name)
                except ValueError as error:
                    why[i] = str(error)
                    continue
                if image.shape == self._encoder.shape:
                    found[i] = image
                else:
                    why[i] = self._encoder.unlike(image.shape)
            X = np.stack(list(found.values())) if found else np.zeros((0, *self._encoder.shape), np.uint8)
            yield Piece(
                start, len(called), X, list(found), called.__getitem__, Place(start + len(called)), why
            )


class Parts:
    """Parquet files that are read one after the other, as one table.

    Parameters
    ----------
    name : str
        What messages call them together.
    paths : sequence of Path
    columns : sequence of str
        Those to read.
    """

    def __init__(self, name: str, paths: Sequence[Path], columns: Sequence[str]) -> None:
        self.name, self._paths, self._columns = name, paths, columns

    def pieces(self, place: Place) -> Iterator[Piece]:
        """Return the pieces from a place on."""
        import polars

        first = skip = place.rows
        size = rows_of_a_piece(len(self._columns))
        for path in self._paths:
            lazy = polars.scan_parquet(path, glob=False)
            try:
                count = lazy.select(polars.len()).collect().item()
                if skip >= count:
                    skip -= count
                    continue
                # Not collect_batches: it reads row groups ahead, and writers make them of a million rows.
                for start in range(skip, count, READ * size):
                    held = lazy.select(self._columns).slice(start, READ * size).collect()
                    for frame in held.iter_slices(size):
                        yield _piece(first, frame)
                        first += len(frame)
                skip = 0
            except (polars.exceptions.PanicException, polars.exceptions.PolarsError, OSError) as error:
                raise unread(path, error) from error


def rows_of_a_piece(columns: int) -> int:
    """Return how many rows of a table are held at once."""
    wanted = max(1, CELLS // max(1, columns))
    return max(FEWEST, min(MOST, 1 << (wanted.bit_length() - 1)))  # whole passes of the network


def _piece(first: int, X: Any) -> Piece:
    count = number_of_rows(X)

    def line(row: int) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells(X[row : row + 1])[0].ravel().tolist())
        return text.getvalue()

    return Piece(first, count, X, range(count), line, Place(first + count))
