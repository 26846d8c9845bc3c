"""One folder a model: JSON, safetensors and skops, checksummed, without pickle, and never half written."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from anograd._version import __version__
from anograd.table import Table

SCHEMA = 1
MANIFEST, TENSORS, TABLE = "manifest.json", "tensors.safetensors", "table.skops"


@dataclass(frozen=True)
class Stored:
    """What a model folder holds.

    Parameters
    ----------
    manifest : dict
        The caller's own, as it was given to `write`.
    tensors : dict of str to Tensor
        On the CPU.
    table : Table or None
        The fitted encoder of a table's columns.
    """

    manifest: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    table: Table | None


def write(
    folder: str | Path, manifest: dict[str, Any], tensors: dict[str, torch.Tensor], table: Table | None
) -> None:
    """Write a model folder, whole or not at all; an earlier model there survives any failure.

    Parameters
    ----------
    folder : str or Path
        A new or empty folder, or one that holds a model, which is replaced. Parents are made.
    manifest : dict
        Plain values that JSON can hold, no NaN or infinity.
    tensors : dict of str to Tensor
        On any device, sharing memory or not.
    table : Table or None
        A fitted table.

    Raises
    ------
    ValueError
        The folder holds something else; give another name.
    OSError
        The disk is full, or writing is not allowed; the message names the folder.
    """
    target = Path(folder).resolve()
    check_replaceable(target)
    detector = json.dumps(manifest, allow_nan=False)
    # The new folder lies beside the old one: a rename is atomic only within one file system.
    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        fresh.mkdir(parents=True)
        _fill(fresh, json.loads(detector), tensors, table)
        _swap(fresh, target)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"the model was not saved in {str(folder)!r}, nothing is half written: "
            f"{error.strerror or error}; free some space or save elsewhere",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # it is gone already when all went well


def read(folder: str | Path) -> Stored:
    """Return the model that a folder holds, after every checksum has been compared.

    Parameters
    ----------
    folder : str or Path
        A folder that `write` made.

    Raises
    ------
    FileNotFoundError
        No such folder; check the path.
    ValueError
        No model of ours, written by a newer anograd, or damaged; the message names folder and reason.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(root)!r}; give the one that the detector was saved to"
        )
    listing = _manifest(root)
    if listing is None:
        raise ValueError(
            f"{str(root)!r} is not a model folder of anograd: it has no {MANIFEST} of ours; give the folder "
            "that the detector was saved to"
        )
    schema, files, detector = (listing.get(key) for key in ("schema", "files", "detector"))
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(
            f"{str(root)!r} was written by a newer anograd ({listing.get('version')}, schema {schema}; this "
            f"is {__version__}, schema {SCHEMA}): pip install -U anograd"
        )
    if schema != SCHEMA or not isinstance(files, dict) or not isinstance(detector, dict):
        raise _damaged(root, f"{MANIFEST} lacks a schema, its files or its detector")
    if listing.get("detector_sha256") != _digest(_canonical(detector)):
        raise _damaged(root, f"the checksum of the detector in {MANIFEST} differs")
    contents = {str(name): _verified(root, str(name), entry) for name, entry in files.items()}
    if TENSORS not in contents:
        raise _damaged(root, f"{MANIFEST} does not list {TENSORS}")
    try:
        tensors = safetensors.torch.load(contents[TENSORS])
    except SafetensorError as error:
        raise _damaged(root, f"{TENSORS}: {error}") from error
    return Stored(detector, tensors, Table.from_skops(root / TABLE) if TABLE in contents else None)


def origin(folder: str | Path) -> tuple[str, dict[str, str]]:
    """Return which anograd wrote a model folder, and the SHA-256 of each file that its manifest lists.

    Parameters
    ----------
    folder : str or Path
        One that `read` has read.
    """
    listing = _manifest(Path(folder)) or {}
    sums = {name: str(entry["sha256"]) for name, entry in listing.get("files", {}).items()}
    return str(listing.get("version")), sums


def _fill(
    fresh: Path, detector: dict[str, Any], tensors: dict[str, torch.Tensor], table: Table | None
) -> None:
    # safetensors refuses tensors that share memory or lie on another device; ours are small enough to copy.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    (fresh / TENSORS).write_bytes(safetensors.torch.save(plain))
    if table is not None:
        table.to_skops(fresh / TABLE)
    files = {}
    for path in sorted(fresh.iterdir()):
        content = path.read_bytes()
        files[path.name] = {"sha256": _digest(content), "bytes": len(content)}
    listing = {
        "format": "anograd",
        "schema": SCHEMA,
        "version": __version__,
        "files": files,
        "detector_sha256": _digest(_canonical(detector)),
        "detector": detector,
    }
    (fresh / MANIFEST).write_text(json.dumps(listing, indent=2) + "\n", encoding="utf-8")
    for path in fresh.iterdir():
        _sync(path)
    _sync(fresh)


def _swap(fresh: Path, target: Path) -> None:
    """Put the new folder in the place of the old one, which comes back when that fails."""
    old = target.with_name(fresh.name + ".old")
    replaced = target.exists()
    if replaced:
        target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        if replaced:
            old.rename(target)
        raise
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
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


def check_replaceable(target: Path) -> None:
    """Return nothing where `write` may put a model: nothing there, an empty folder, or an earlier model."""
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{str(target)!r} is a file; a model is saved as a folder: give another name")
    inside = sorted(path.name for path in target.iterdir())
    if not inside:
        return
    try:
        ours = _manifest(target) is not None
    except ValueError:
        ours = False
    if not ours:
        shown = ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
        raise ValueError(
            f"{str(target)!r} holds something other than a model ({shown}), and is left as it is; give "
            "a new name"
        )


def _manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a model folder, or None where there is none of ours."""
    path = root / MANIFEST
    if not path.is_file():
        return None
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise _damaged(root, f"{MANIFEST} cannot be read: {error}") from error
    return listing if isinstance(listing, dict) and listing.get("format") == "anograd" else None


def _verified(root: Path, name: str, entry: Any) -> bytes:
    """Return the bytes of a listed file, once size and checksum agree with the manifest."""
    if name not in (TENSORS, TABLE):  # so that a manifest cannot point out of the folder
        raise _damaged(root, f"{MANIFEST} lists {name!r}, which is no file of a model")
    path = root / name
    if not path.is_file():
        raise _damaged(root, f"{name} is missing")
    content = path.read_bytes()
    wanted = entry if isinstance(entry, dict) else {}
    if len(content) != wanted.get("bytes"):
        raise _damaged(root, f"{name} has {len(content)} bytes and should have {wanted.get('bytes')}")
    if _digest(content) != wanted.get("sha256"):
        raise _damaged(root, f"the checksum of {name} differs")
    return content


def _damaged(root: Path, reason: str) -> ValueError:
    return ValueError(
        f"the model in {str(root)!r} is damaged: {reason}; copy it again or save the detector anew"
    )


def _canonical(detector: dict[str, Any]) -> bytes:
    return json.dumps(detector, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
