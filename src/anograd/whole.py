"""A file or a folder that is there whole in the end, or not at all; what a kill leaves, the next run clears.

What is written lies beside its place under ``.name.hex``, is on the disk before it is renamed, and is locked
by its writer, so that another run can tell what a dead one left from what is being written.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

OLD = ".old"
# How each system calls the exchange of two names, and its flag.
EXCHANGES = {"linux": ("renameat2", (-100,), 2), "darwin": ("renamex_np", (), 2)}


def check_writable(folder: str | Path) -> None:
    """Return nothing when files can be made in the folder; else raise OSError that names it."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"nothing can be written in the folder {str(folder)!r}: {error.strerror or error}; "
            "make it writable, or give another place with -o",
        ) from error


def check_makable(folder: Path) -> None:
    """Return nothing when a folder is there, or can be made, and written in; else raise OSError as above."""
    check_writable(next(place for place in (folder, *folder.parents) if place.exists()))


@contextmanager
def written_whole(path: str | Path) -> Iterator[BinaryIO]:
    """Give a file to write to that is there whole in the end, or not at all; an earlier one survives failure.

    Parameters
    ----------
    path : str or Path
        A link is followed; a device or pipe (``/dev/stderr``) is written to, not replaced.

    Raises
    ------
    OSError
        The disk is full, or writing is not allowed; the message names the file.
    """
    given, target = Path(path), Path(path).resolve()
    try:
        if given.exists() and not given.is_file():  # a pipe among /dev/fd resolves to what is not there
            with given.open("wb") as file:
                yield file
            return
        clear(target)
        fresh = _beside(target)
        try:
            with fresh.open("xb") as file:
                if target.exists():
                    _take_mode(target, fresh)
                claim(file.fileno())
                yield file
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)  # it is gone already when all went well
        sync(target.parent)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"{str(path)!r} was not written, nothing is half written: {error.strerror or error}; "
            f"{space_or(error)}write elsewhere",
        ) from error


def to_stdout(content: bytes) -> None:
    """Write to stdout what a file would hold, whatever the locale's encoding is."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "stdout is closed, and what was to be written there is lost: give a file")
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:  # as in a notebook
        sys.stdout.write(content.decode(errors="replace"))
        return
    sys.stdout.flush()
    binary.write(content)
    binary.flush()


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Keep other processes that ask for the same from what is written there, until the end.

    Parameters
    ----------
    target : Path
        Absolute; its folder is there. ``.name.lock`` lies beside it meanwhile.

    Raises
    ------
    OSError
        Another process is at it.
    """
    path = target.with_name(f".{target.name}.lock")
    with path.open("ab") as lock:
        try:
            claim(lock.fileno(), wait=False)
            mine = path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno()))
        except BlockingIOError:
            mine = False
        except OSError:  # a disk that knows no locks
            mine = True
        if not mine:
            raise busy(target)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # where what is open stays
                path.unlink()


def busy(target: Path) -> OSError:
    """Return the error that another run writes there."""
    return OSError(
        errno.EBUSY, f"another run writes to {str(target)!r}: wait for its end, or give another -o"
    )


def space_or(error: OSError) -> str:
    """Return what helps beside another place: nothing, unless the disk is full."""
    return "free some space or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file as `written_whole` does, all at once."""
    with written_whole(path) as file:
        file.write(content)


@contextmanager
def filled_whole(target: Path) -> Iterator[Path]:
    """Give a new folder to fill that takes the place of `target` in the end; an earlier one survives failure.

    Parameters
    ----------
    target : Path
        Absolute. Parents are made. Where the system can, the two folders change names in one step, so that
        there is a whole one under the name at every moment. Who may read the earlier one, folder and files,
        may read this one.
    """
    clear(target)
    fresh = _beside(target)
    fresh.mkdir(parents=True)
    usual = stat.S_IMODE(fresh.stat().st_mode)
    fresh.chmod(stat.S_IRWXU)  # until it is full, and its files are as private as they were
    with contextlib.ExitStack() as stack:
        stack.callback(
            shutil.rmtree, fresh, ignore_errors=True
        )  # what is there by then: ours, or the old one
        if fcntl is not None:
            handle = os.open(fresh, os.O_RDONLY)
            stack.callback(os.close, handle)
            claim(handle)
        yield fresh
        for path in fresh.iterdir():
            sync(path)
            if (target / path.name).is_file():
                _take_mode(target / path.name, path)
        fresh.chmod(stat.S_IMODE(target.stat().st_mode) if target.is_dir() else usual)
        sync(fresh)
        _put(fresh, target)
        sync(target.parent)


def clear(target: Path) -> None:
    """Remove what killed runs left beside a file or folder; an earlier folder without its name gets it back.

    What another run is writing at the moment is locked by it and stays. A system without locks keeps all.
    """
    ours = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{32}(\.old)?")
    left: list[Path] = []
    with contextlib.suppress(OSError):  # no such folder, or one that may not be listed
        left = [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]
    for path in sorted(
        left if fcntl is not None else ()
    ):  # an old folder after the one that was to replace it
        with contextlib.suppress(OSError):  # another run is writing it, or it is not ours to touch
            handle = os.open(path, os.O_RDONLY)
            try:
                claim(handle, wait=False)
                if path.suffix == OLD and path.with_suffix("").exists():
                    continue  # the new one is being written
                if path.suffix == OLD and not target.exists():
                    path.rename(target)
                elif path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(handle)


def sync(path: Path) -> None:
    """Wait until the disk has a file or folder."""
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        return
    with contextlib.suppress(OSError):  # Windows and some network disks have no such thing for folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _take_mode(earlier: Path, fresh: Path) -> None:
    """Let those read and write what is new who may do so with what it replaces."""
    with contextlib.suppress(OSError):  # a disk without modes
        fresh.chmod(stat.S_IMODE(earlier.stat().st_mode))


def _beside(target: Path) -> Path:
    """Return a new name in the same folder: a rename is atomic only within one file system."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}")


def claim(handle: int, *, wait: bool = True) -> None:
    """Lock what is open, until it is closed or the process ends; raise OSError where another has it."""
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _put(fresh: Path, target: Path) -> None:
    """Put the new folder in the place of the old one, which comes back when that fails."""
    if not target.exists():
        fresh.rename(target)
        return
    if _exchanged(fresh, target):
        return
    old = fresh.with_name(fresh.name + OLD)
    target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two paths change names in one step; return False where the system or its disk cannot."""
    name, where, flag = EXCHANGES.get(sys.platform, ("", (), 0))
    exchange = getattr(ctypes.CDLL(None), name, None) if name else None
    if exchange is None:
        return False
    return bool(exchange(*where, os.fsencode(one), *where, os.fsencode(other), flag) == 0)
