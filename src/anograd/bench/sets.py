"""Data sets by name: shipped with scikit-learn, files on disk checked by their sums, or fetched from OpenML.

Files are looked for in the folder that ``ANOGRAD_DATA`` names, else in ``../shared/data``; its ``SHA256SUMS``
says what they must be. What is fetched is kept in ``ANOGRAD_CACHE``, else in ``~/.cache/anograd``. This is
the one place of anograd that asks a network, and only where a run names a set "openml/...".
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from anograd.bench import readers
from anograd.bench.names import unknown
from anograd.bench.readers import Loaded

SUMS = "SHA256SUMS"
TESTED = 10_000  # at OpenML the training images come first, then so many test images


@dataclass(frozen=True)
class DataSet:
    """One data set: where it is, which classes are normal, and how it is read.

    Parameters
    ----------
    load : function
        Returns the rows, from files that `check` has passed.
    normal : tuple
        The normal classes.
    files : tuple of str
        Paths below the data folder; none for a set that ships with scikit-learn or is fetched.
    unlike : tuple
        Classes that known anomalies come from where others are kept for the test ("transfer").
    classes : int
        How many classes there are; a one-class protocol takes each in turn.
    images : bool
    openml : int, optional
        Its number there.
    needs : str, optional
        The module that its files are read with.
    """

    load: Callable[[], Loaded]
    normal: tuple[Any, ...] = (0,)
    files: tuple[str, ...] = ()
    unlike: tuple[Any, ...] = ()
    classes: int = 2
    images: bool = False
    openml: int | None = None
    needs: str | None = None


def folder() -> Path:
    """Return the folder of data files, which need not be there."""
    return Path(os.environ.get("ANOGRAD_DATA", Path("..", "shared", "data"))).resolve()


@cache
def registry() -> dict[str, DataSet]:
    """Return every known data set by name; tables of ADBench are found in the data folder."""
    root = folder()
    mosaics = tuple(f"cifar10/{split}_{name}.webp" for split in ("train", "test") for name in readers.CIFAR10)
    parts = tuple(f"covtype/covtype_{part}.csv.xz" for part in readers.COVERTYPE_PARTS)
    attacks = ("nsl_kdd/KDDTrain+.txt.xz", "nsl_kdd/KDDTest+.txt.xz", "nsl_kdd/columns.json")
    found = {
        "digits": _ten(readers.digits),
        "breast_cancer": DataSet(readers.breast_cancer, (1,)),
        "wine": DataSet(readers.wine, classes=3),
        "mnist": _ten(partial(readers.archive, root / "mnist.npz"), ("mnist.npz",)),
        "fashion_mnist": _ten(partial(readers.archive, root / "fashion_mnist.npz"), ("fashion_mnist.npz",)),
        "cifar10": _ten(partial(readers.cifar10, root / "cifar10"), mosaics, "PIL"),
        "mammography": _table(root, "adbench/classical/23_mammography.npz"),
        "creditcard": DataSet(
            partial(readers.creditcard, root / "creditcard" / "creditcard_subset.csv.xz"),
            files=("creditcard/creditcard_subset.csv.xz",), needs="polars",
        ),
        "covtype": DataSet(
            partial(readers.covtype, root / "covtype"), (1, 2, 3), parts, (4, 5), 7, needs="polars"
        ),
        "nsl_kdd": DataSet(
            partial(readers.nsl_kdd, root / "nsl_kdd"), ("normal",), attacks, ("dos", "probe"), 5,
            needs="polars",
        ),
    }  # fmt: skip
    for path in sorted(root.glob("adbench/*/*.npz"), key=lambda path: path.stem.partition("_")[2].lower()):
        name = path.stem.partition("_")[2] if path.parent.name == "classical" else path.stem
        found[f"adbench/{name}"] = _table(root, path.relative_to(root).as_posix())
    return found | {name: _fetched(name, *fetched) for name, fetched in OPENML.items()}


def _ten(load: Callable[[], Loaded], files: tuple[str, ...] = (), needs: str | None = None) -> DataSet:
    """Return ten classes of images; which are normal under R2-AD2's protocol is its paper's choice."""
    return DataSet(load, (0, 1, 2, 3), files, (4, 5, 6), 10, True, needs=needs)


def _table(root: Path, file: str) -> DataSet:
    return DataSet(partial(readers.adbench, root / file), files=(file,))


def find(name: str) -> DataSet:
    """Return a data set by name.

    Parameters
    ----------
    name : str

    Raises
    ------
    ValueError
        No set is called so; the nearest names are told.
    """
    sets = registry()
    if name not in sets:
        raise unknown(name, sets, "data set", "anograd bench data lists them all")
    return sets[name]


@lru_cache(maxsize=4)
def load(name: str) -> Loaded:
    """Return a data set's rows, its files checked first.

    Parameters
    ----------
    name : str
        One of `registry`.

    Raises
    ------
    ValueError
        An unknown name, or a file that is not what the sums say.
    FileNotFoundError
        A file that is not here.
    """
    found = find(name)
    for file in found.files:
        check(file)
    return found.load()


def missing(name: str) -> str | None:
    """Return what of a data set is not here, None where nothing is missing; nothing is read or fetched."""
    found = find(name)
    if found.openml is not None:
        return None if _is_fetched(name) else "not fetched yet: a run that names it fetches it from OpenML"
    gone = [file for file in found.files if not (folder() / file).is_file()]
    if gone:
        return f"{gone[0]!r} is not in {str(folder())!r}: set ANOGRAD_DATA to the folder that has it"
    return None


@cache
def _sums(root: Path) -> dict[str, str]:
    path = root / SUMS
    if not path.is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip())
    return {name.removeprefix("*").removeprefix("./"): value for value, name in lines}


def check(file: str) -> None:
    """Refuse a file below the data folder that is not there, or is not what its sum says.

    Parameters
    ----------
    file : str
        Path below the data folder.

    Raises
    ------
    FileNotFoundError
        It is not there.
    ValueError
        Its sum is another one, or ``SHA256SUMS`` does not name it.
    """
    root = folder()
    path = root / file
    if not path.is_file():
        raise FileNotFoundError(
            f"{file!r} is not in {str(root)!r}: set ANOGRAD_DATA to the folder that has it"
        )
    sums = _sums(root)
    if file not in sums:
        raise ValueError(
            f"{str(root / SUMS)!r} has no sum of {file!r}: a file is only read when its sum is known"
        )
    with path.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != sums[file]:
        raise ValueError(
            f"{str(path)!r} is damaged or another version: its SHA-256 is {found[:12]}..., and {SUMS} says "
            f"{sums[file][:12]}...; get the file anew"
        )


# Name: number at OpenML, the class column's normal values, the sum of its rows in whatever order they come
# (see `fingerprint`), shape of an image or None. Sums were taken of copies that had been checked otherwise.
OPENML: dict[str, tuple[int, tuple[Any, ...], str, tuple[int, ...] | None]] = {
    "openml/mammography": (310, (0,), "d0fe1c152f0f1d8fb6fa5504a01f8984", None),
    "openml/mnist": (554, (0, 1, 2, 3), "bd48d4e96e2b8a4fd67083b4ebcad25c", (1, 28, 28)),
    "openml/fashion_mnist": (40996, (0, 1, 2, 3), "bdab2f6c16f68ed93f24b9c4dce74b76", (1, 28, 28)),
    "openml/cifar10": (40927, (0, 1, 2, 3), "f07030bc57cf3c312c61c67172bd6458", (3, 32, 32)),
}


def _fetched(
    name: str, number: int, normal: tuple[Any, ...], expected: str, shape: Sequence[int] | None
) -> DataSet:
    images = shape is not None
    unlike = (4, 5, 6) if images else ()
    return DataSet(
        partial(_fetch, name, number, expected, shape),
        normal,
        (),
        unlike,
        10 if images else 2,
        images,
        number,
    )


def cache_folder() -> Path:
    """Return the folder of what was fetched."""
    return Path(os.environ.get("ANOGRAD_CACHE", Path.home() / ".cache" / "anograd"))


def _is_fetched(name: str) -> bool:
    return (cache_folder() / f"{name.replace('/', '-')}.npz").is_file()


def _fetch(name: str, number: int, expected: str, shape: Sequence[int] | None) -> Loaded:
    """Return a set of OpenML from the cache, else from there; refused where its rows are others."""
    path = cache_folder() / f"{name.replace('/', '-')}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            rows, kinds = kept["rows"], kept["kinds"]
    else:
        from sklearn.datasets import fetch_openml

        fetched = fetch_openml(data_id=number, as_frame=False, parser="liac-arff")
        rows, kinds = np.asarray(fetched.data), np.asarray(fetched.target)
        kinds = np.unique(kinds, return_inverse=True)[1]
        rows = rows.astype(np.uint8).reshape(-1, *shape) if shape is not None else rows.astype(float)
    found = fingerprint(rows)
    if found != expected:
        raise ValueError(
            f"{name!r}, number {number} at OpenML, has other rows than those known here: their sum is "
            f"{found}, wanted is {expected}; remove {str(path)!r} if it is there, and fetch anew"
        )
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, rows=rows, kinds=kinds)
        os.replace(part, path)
    if shape is None:
        return Loaded(rows, kinds)
    if shape == (3, 32, 32):
        rows = readers.shrunk(rows)
    return Loaded(rows[:-TESTED], kinds[:-TESTED], rows[-TESTED:], kinds[-TESTED:])


def fingerprint(rows: Any) -> str:
    """Return a sum of rows that does not depend on their order.

    Examples
    --------
    >>> fingerprint(np.arange(6.0).reshape(3, 2)) == fingerprint(np.arange(6.0).reshape(3, 2)[::-1])
    True
    """
    total = 0
    for row in np.ascontiguousarray(rows):
        total += int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), "little")
    return f"{total % 2**128:032x}"
