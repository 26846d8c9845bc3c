"""A file or a folder of images becomes an array or a frame; a damaged one is refused by name."""

import glob
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from anograd.commas import (
    HEADER,
    check_csv,
    check_encoding,
    check_lines,
    empty_lines,
    header,
    with_numbers,
)
from anograd.image_files import IMAGE_ENDINGS, check_pictures, read_images
from anograd.quotes import check_quotes
from anograd.reading import BROKEN, check_stopped, damaged, extra, first_line, unread

WANTED = (
    "x.npy, x.npz:key, x.csv, x.parquet, or a folder of Parquet files or of images "
    "(png, jpg, jpeg, bmp, webp, tif), or - for CSV on stdin"
)
# What polars says of integers of more than 38 digits.
TOO_LONG = re.compile(r"as dtype `i128` at column '(.*)' \(column number")
NO_FLOAT = re.compile(r"as dtype `f64` at column '(.*)' \(column number")
STDIN = "-"
NUMPY = (b"\x93NUM", b"PK\x03\x04", b"PK\x05\x06")  # how npy and npz begin; numpy takes all else for a pickle


def read(source: str | Path, texts: Sequence[str] = (), pictures: Sequence[str] | None = None) -> Any:
    """Return what a file or folder holds: a numpy array, or a polars frame for CSV and Parquet.

    Parameters
    ----------
    source : str or Path
        ``x.npy``, ``x.npz:key`` (the key may be left out when the archive holds one array), ``x.csv``,
        ``x.parquet``, a folder of Parquet files or a pattern (``x/*.parquet``) as in `parquet_files`, or a
        folder of images of one size, searched through all its subfolders; or CSV through a pipe: ``-`` for
        stdin, or a named one.
    texts : sequence of str
        Columns of a CSV that are read as text whatever their cells look like, such as codes 02 and 03.
    pictures : sequence of str, optional
        The paths that `names` gave for a folder of images, so that each row is the one that is called so,
        whatever comes into the folder meanwhile. Left out, they are listed now.

    Returns
    -------
    ndarray or polars.DataFrame
        For a folder: uint8 of shape ``(n, C, H, W)`` with C = 1 (grey) or 3 (colour), ordered as in `names`,
        each turned as its EXIF says it is looked at.

    Raises
    ------
    FileNotFoundError
        No such file; check the path.
    ValueError
        Unknown ending, damaged file, pickled objects, images of unlike size or mode; the message names it.
    ImportError
        Tables need ``pip install 'anograd[tables]'``, images ``pip install 'anograd[images]'``.
    """
    if is_pipe(source):
        with opened(source) as (pipe, name):
            return _read_stream(pipe, name, texts)
    text, _, key = str(source).partition(".npz:")
    path = Path(text + ".npz" if key else source)
    if parquet := parquet_files(path):
        return _read_parquet(path, parquet)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no file or folder {str(path)!r}; check the path, wanted is {WANTED}"
        )
    ending = path.suffix.lower()
    if path.is_dir():
        return read_images(path, (names(path) if pictures is None else pictures) or (), _below(path))
    if ending in (".npy", ".npz"):
        return _read_numpy(path, key)
    if ending == ".csv":
        return _read_csv(path, texts)
    raise ValueError(f"{str(path)!r} ends in {ending!r}, which cannot be read; wanted is {WANTED}")


def is_pipe(source: str | Path) -> bool:
    """Tell whether rows come through a pipe, as CSV: from stdin or a named one."""
    return str(source) == STDIN or Path(source).is_fifo()


@contextmanager
def opened(source: str | Path) -> Iterator[tuple[BinaryIO, str]]:
    """Give a file or pipe to read bytes from, and what messages call it.

    Parameters
    ----------
    source : str or Path

    Yields
    ------
    file, str

    Raises
    ------
    ValueError
        Nothing is piped into stdin.
    """
    if str(source) != STDIN:
        with Path(source).open("rb") as file:
            yield file, repr(str(source))
        return
    if sys.stdin is None or sys.stdin.isatty():  # none is there where a shell has closed it
        raise ValueError("- reads CSV from stdin, and nothing is piped into it: cat x.csv | anograd ... -")
    yield sys.stdin.buffer, "stdin"


def scan(source: str | Path, texts: Sequence[str] = (), pictures: Sequence[str] | None = None) -> Any:
    """Return what `read` returns, but for Parquet a polars LazyFrame, which is read in pieces.

    Parameters
    ----------
    source : str or Path
    texts : sequence of str
    pictures : sequence of str, optional
        All as for `read`.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        As in `read`.
    """
    parquet = parquet_files(source)
    if not parquet:
        return read(source, texts, pictures)
    polars = extra("polars", "tables", Path(source))
    check_alike(parquet)
    return polars.scan_parquet(parquet, glob=False)


def parquet_files(source: str | Path) -> list[Path]:
    """Return the Parquet files that a path stands for, in the order of their names; none for anything else.

    A folder stands for all in it and its subfolders, but for names that begin with "." or "_"; a path that
    is not there and holds "*" or "?" for all that match.

    Parameters
    ----------
    source : str or Path
    """
    path = Path(source)
    if path.is_dir():
        return _tables(path, _below(path))
    if path.suffix.lower() != ".parquet":
        return []
    if path.exists():
        return [path]
    found = glob.glob(str(source).replace("[", "[[]")) if set(str(source)) & set("*?") else []
    return sorted(map(Path, found))


def _tables(folder: Path, below: Iterable[Path]) -> list[Path]:
    inside = (p for p in below if p.suffix.lower() == ".parquet")
    return sorted(p for p in inside if not any(s[0] in "._" for s in p.relative_to(folder).parts))


def check_alike(paths: Sequence[Path]) -> None:
    """Raise ValueError where Parquet files cannot be read, or have other columns than the first of them.

    Parameters
    ----------
    paths : sequence of Path
    """
    polars = extra("polars", "tables", paths[0])
    schemas = []
    for path in paths:
        try:
            schemas.append(polars.scan_parquet(path, glob=False).collect_schema())
        except (polars.exceptions.PanicException, *BROKEN) as error:
            if isinstance(error, polars.exceptions.DuplicateError):
                said = f"{str(path)!r} has two columns of one name: {first_line(error)}; rename one"
                raise ValueError(said) from error
            raise unread(path, error) from error
        first, this = schemas[0], schemas[-1]
        if this == first:
            continue
        changed = next((name for name in first if this.get(name) != first[name]), None)
        if changed is None:
            changed = next((name for name in this if name not in first), next(iter(this)))
        was, now = (one.get(changed, "no such column") for one in (first, this))
        raise ValueError(
            f"the columns change half-way: column {changed!r} is {now} in {str(path)!r} and {was} in "
            f"{str(paths[0])!r}, or stands elsewhere; write all parts with the same columns"
        )


def names(source: str | Path) -> list[str] | None:
    """Return the image paths below a folder, sorted, with "/" on every system; None for a file or table.

    They are the row ids of what `read` returns. Hidden files and folders (".name") are left out.
    """
    root = Path(source)
    if not root.is_dir():
        return None
    below = list(_below(root))
    if _tables(root, below):
        return None
    inside = (p.relative_to(root) for p in below if p.suffix.lower() in IMAGE_ENDINGS)
    return sorted(p.as_posix() for p in inside if not any(part.startswith(".") for part in p.parts))


def check_folder(source: str | Path, pictures: Sequence[str]) -> None:
    """Raise ValueError where a folder holds no image, and warn of pictures of kinds that are not read.

    Parameters
    ----------
    source : str or Path
    pictures : sequence of str
        From `names`.
    """
    check_pictures(Path(source), pictures, _below(Path(source)))


def _below(root: Path) -> Iterator[Path]:
    """Return all files in a folder and its subfolders, linked ones as well where they are not read anyway."""
    return _files(str(root), (root.resolve(),))


def _files(folder: str, trees: tuple[Path, ...]) -> Iterator[Path]:
    with os.scandir(folder) as inside:
        for entry in inside:
            if not entry.is_dir():
                yield Path(entry.path)
            elif not entry.is_symlink():
                yield from _files(entry.path, trees)
            else:
                there = Path(entry.path).resolve()
                if not any(there.is_relative_to(tree) or tree.is_relative_to(there) for tree in trees):
                    yield from _files(entry.path, (*trees, there))


def _read_numpy(path: Path, key: str) -> NDArray[Any]:
    try:
        with path.open("rb") as file:  # opened here, because numpy leaves a damaged archive open
            if file.read(4) not in NUMPY:
                raise ValueError("it is no numpy file; write it with np.save or np.savez")
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            if key in loaded.files or (not key and len(loaded.files) == 1):
                return np.asarray(loaded[key or loaded.files[0]])
            keys = loaded.files
    except BROKEN as error:
        if "pickle" in str(error):
            raise ValueError(
                f"{str(path)!r} holds Python objects (a pickle), which could run code when read; save "
                "plain numbers: np.save(path, array.astype('float32'))"
            ) from error
        raise damaged(path, error) from error
    given = f"has no array {key!r}" if key else "holds several arrays, or none"
    raise ValueError(f"{str(path)!r} {given}; it holds {keys}, and one of them is wanted: {path.name}:key")


def _read_parquet(path: Path, parquet: list[Path]) -> Any:
    polars = extra("polars", "tables", path)
    check_alike(parquet)
    try:
        return polars.read_parquet(parquet, glob=False)
    except (polars.exceptions.PanicException, *BROKEN) as error:
        raise unread(path, error) from error


def _read_csv(path: Path, texts: Sequence[str]) -> Any:
    polars = extra("polars", "tables", path)
    name = repr(str(path))
    with path.open("rb") as file:
        first = file.readline(HEADER)
    check_csv(first, name)
    try:
        frame = _cells(polars, path, header(first, name), texts)
    except (polars.exceptions.PanicException, *BROKEN) as error:
        check_encoding(name, "FILE > utf8.csv", error)
        check_stopped(error)
        check_quotes(path.read_bytes(), name)
        raise unread(path, error) from error
    if frame[:, -1].null_count():
        with path.open(encoding="utf-8", newline="") as lines:
            check_lines(lines, frame.width, name)
    return frame


def _read_stream(stream: BinaryIO, name: str, texts: Sequence[str]) -> Any:
    """Return the rows of a CSV that comes through a pipe."""
    polars = extra("polars", "tables", Path(name))
    content = stream.read()
    check_csv(content, name)
    try:
        frame = _cells(polars, content, header(content.partition(b"\n")[0], name), texts)
    except (polars.exceptions.PanicException, *BROKEN) as error:
        check_encoding(name, "FILE | anograd ... -", error)
        check_quotes(content, name)
        raise ValueError(
            f"{name} could not be read as CSV: {first_line(error)}; a line of names comes first"
        ) from error
    if frame[:, -1].null_count():
        check_lines(io.StringIO(content.decode(), newline=""), frame.width, name)
    return frame


def _cells(polars: ModuleType, source: Path | bytes, names: list[str], texts: Sequence[str]) -> Any:
    """Return what a CSV holds, its columns called as the line of names says."""
    # polars leaves doubled quotes in a name as they are.
    called = polars.read_csv(source, n_rows=0, infer_schema=False, glob=False).columns
    kinds = {theirs: polars.String for theirs, ours in zip(called, names, strict=True) if ours in texts}
    frame = _inferred(polars, source, kinds)
    if len(names) > 1 and (empty := empty_lines(source)):  # which polars makes rows of
        frame = frame.head(len(frame) - empty)
    frame.columns = names
    return with_numbers(frame, texts)


def _inferred(polars: ModuleType, source: Path | bytes, kinds: dict[str, Any]) -> Any:
    """Return what a CSV holds, of the kinds that are given and else of those that all its rows allow."""
    try:
        return polars.read_csv(source, infer_schema_length=None, schema_overrides=kinds, glob=False)
    except polars.exceptions.ComputeError as error:
        found = TOO_LONG.search(str(error)) or NO_FLOAT.search(str(error))
        if found is None or kinds.get(found[1]) == polars.String:
            raise
        # Digits of other scripts are whole numbers to polars, until it reads them.
        then = polars.String if found[1] in kinds else polars.Float64
        return _inferred(polars, source, {**kinds, found[1]: then})
