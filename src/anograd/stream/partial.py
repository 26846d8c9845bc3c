"""The scores of a run that is not finished: one float64 a row in a folder beside the file they are for.

A small journal vouches for what is there. Whenever a run is killed, the next one cuts off what the journal
does not vouch for, and goes on from there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from anograd.stream.pieces import Place
from anograd.whole import busy, claim, space_or

Floats = NDArray[np.float64]
EVERY = 1.0  # seconds between two entries in the journal, each after a whole piece
READ = 2**16  # scores read back at once
FLOAT = 8  # bytes


class Partial:
    """Scores so far, NaN for a row that was rejected, and lines that say why.

    Parameters
    ----------
    folder : Path
        Made where it is not there.
    key : dict
        What the scores depend on, as plain data: an earlier run goes on only where it is the same.

    Attributes
    ----------
    place : Place
        Where the source goes on.
    counts : sequence of int
        What was added last of these.
    changed : list of str
        What of the key differs from an earlier run's, which is then gone.

    Raises
    ------
    OSError
        Another process writes there.
    """

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._key = folder, key
        self._lock = _locked(folder)
        journal = self._journal()
        was = journal.get("key") or {}
        self.changed = [name for name in key if was and was.get(name) != key[name]]
        if was != key:
            journal = {}
            (folder / "journal").unlink(missing_ok=True)
        self.place = Place(*journal.get("place", (0, 0)))
        self.counts: Sequence[int] = journal.get("counts", ())
        self.vouched = bool(journal)
        self._scores = _opened(folder / "scores", FLOAT * self.place.rows)
        self._rejects = _opened(folder / "rejects", journal.get("bytes_of_rejects", 0))
        self._due = monotonic() + EVERY

    def add(self, scores: Floats, rejects: bytes, after: Place, counts: Sequence[int] = ()) -> None:
        """Append the scores of the next rows, and what is said of those that have none.

        Parameters
        ----------
        scores : ndarray (b,)
            NaN for a row that was rejected.
        rejects : bytes
            Lines of CSV.
        after : Place
            Where the source goes on.
        counts : sequence of int
            Of all rows so far, for a later run to count on.
        """
        try:
            self._scores.write(scores.astype("<f8").data)
            self._rejects.write(rejects)
            self.place, self.counts = after, counts
            if monotonic() > self._due:
                self.vouch()
        except OSError as error:
            raise OSError(
                error.errno,
                f"{str(self.folder)!r}, where scores are kept until all are there, cannot be written: "
                f"{error.strerror or error}; {space_or(error)}write elsewhere",
            ) from error

    def vouch(self) -> None:
        """Write the journal, once the disk has all that it vouches for."""
        for file in (self._scores, self._rejects):
            file.flush()
            os.fsync(file.fileno())
        entry = {
            "key": self._key, "place": [self.place.rows, self.place.bytes],
            "bytes_of_rejects": self._rejects.tell(), "counts": self.counts,
        }  # fmt: skip
        following = self.folder / "journal.next"
        with following.open("wb") as journal:
            journal.write(json.dumps(entry).encode())
            journal.flush()
            os.fsync(journal.fileno())
        following.replace(self.folder / "journal")
        self.vouched = True
        self._due = monotonic() + EVERY

    def scores(self) -> Iterator[Floats]:
        """Return all scores so far in pieces."""
        self._scores.flush()
        with (self.folder / "scores").open("rb") as file:
            while piece := file.read(FLOAT * READ):
                yield np.frombuffer(piece, dtype="<f8").astype(np.float64, copy=False)

    def rejects(self) -> Iterator[bytes]:
        """Return the lines about rejected rows in pieces."""
        self._rejects.flush()
        with (self.folder / "rejects").open("rb") as file:
            while piece := file.read(2**20):
                yield piece

    def close(self, *, keep: bool) -> None:
        """Leave what is vouched for to a later run, or remove all.

        Parameters
        ----------
        keep : bool
        """
        if keep:
            with contextlib.suppress(OSError):  # such as a full disk, which is why the run ended
                self.vouch()
        else:
            (self.folder / "journal").unlink(missing_ok=True)  # first: the rest means nothing without it
        for file in (self._scores, self._rejects):
            with contextlib.suppress(OSError):
                file.close()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _journal(self) -> dict[str, Any]:
        """Return the last entry of the journal; of none, or where less is there than it says, nothing."""
        try:
            journal: dict[str, Any] = json.loads((self.folder / "journal").read_text(encoding="utf-8"))
            there = [(self.folder / name).stat().st_size for name in ("scores", "rejects")]
            wanted = [FLOAT * journal["place"][0], journal["bytes_of_rejects"]]
        except (OSError, ValueError, LookupError, TypeError):
            return {}
        return journal if all(have >= want for have, want in zip(there, wanted, strict=True)) else {}


def _opened(path: Path, size: int) -> BinaryIO:
    """Return a file opened to be written on from a size on, what is behind it cut off."""
    file = path.open("r+b" if size else "wb")
    file.truncate(size)
    file.seek(size)
    return file


def _locked(folder: Path) -> BinaryIO:
    """Return a file that keeps other processes away until it is closed, where the system has such a thing."""
    file = (folder / "lock").open("ab")
    try:
        claim(file.fileno(), wait=False)
    except BlockingIOError as error:
        file.close()
        raise busy(folder) from error
    except OSError:  # a disk that knows no locks
        pass
    return file
