"""One folder a model: JSON, safetensors and skops, checksummed, without pickle, and never half written."""

import errno
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from anograd._version import __version__
from anograd.table import Table
from anograd.whole import filled_whole, space_or

SCHEMA = 1
MANIFEST, TENSORS, TABLE = "manifest.json", "tensors.safetensors", "table.skops"
MOST_MANIFEST = 32 * 2**20  # bytes; JSON takes some forty times as much memory as it is long


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
    try:
        with filled_whole(target) as fresh:
            _fill(fresh, json.loads(detector), tensors, table)
    except OSError as error:
        raise OSError(
            error.errno or errno.EIO,
            f"the model was not saved in {str(folder)!r}, nothing is half written: "
            f"{error.strerror or error}; {space_or(error)}save elsewhere",
        ) from error


def fingerprint(folder: str | Path) -> str:
    """Return what tells a stored model from others: the checksum of its manifest, which has all others."""
    return hashlib.sha256((Path(folder) / MANIFEST).read_bytes()).hexdigest()


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
        raise damaged(root, f"{MANIFEST} lacks a schema, its files or its detector")
    if listing.get("sha256") != _own_digest(listing):
        raise damaged(root, f"the checksum of {MANIFEST} differs")
    contents = {str(name): _verified(root, str(name), entry) for name, entry in files.items()}
    if TENSORS not in contents:
        raise damaged(root, f"{MANIFEST} does not list {TENSORS}")
    try:
        read = safetensors.torch.load(contents.pop(TENSORS))
        # Copies lie as torch lays its own tensors: where one begins decides how some products are rounded.
        tensors = {name: tensor.clone() for name, tensor in read.items()}
        table = Table.from_skops(contents[TABLE]) if TABLE in contents else None
    except SafetensorError as error:
        raise damaged(root, f"{TENSORS}: {error}") from error
    except ValueError as error:
        raise damaged(root, f"{TABLE}: {error}") from error
    return Stored(detector, tensors, table)


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
    contents = {TENSORS: safetensors.torch.save(plain)}
    if table is not None:
        contents[TABLE] = table.to_skops()
    files = {}
    for name, content in contents.items():
        (fresh / name).write_bytes(content)
        files[name] = {"sha256": _digest(content), "bytes": len(content)}
    listing = {
        "format": "anograd",
        "schema": SCHEMA,
        "version": __version__,
        "files": files,
        "detector": detector,
    }
    listing["sha256"] = _own_digest(listing)
    text = json.dumps(listing, indent=2) + "\n"
    if len(text) > MOST_MANIFEST:  # better told now than at loading
        raise ValueError(f"{MANIFEST} would take {len(text):,} bytes, of at most {MOST_MANIFEST:,}")
    (fresh / MANIFEST).write_text(text, encoding="utf-8")


def check_replaceable(target: Path) -> None:
    """Return nothing where `write` may put a model: nothing there, an empty folder, or an earlier model."""
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{str(target)!r} is a file; a model is saved as a folder: give another name")
    inside = sorted(path.name for path in target.iterdir())
    try:
        ours = not inside or _manifest(target) is not None
    except ValueError:
        ours = False
    foreign = [name for name in inside if not ours or name not in (MANIFEST, TENSORS, TABLE)]
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise ValueError(
            f"{str(target)!r} holds something other than a model ({shown}), and is left as it is; give "
            "a new name"
        )


def _manifest(root: Path) -> dict[str, Any] | None:
    """Return the manifest of a model folder, or None where there is none of ours."""
    path = root / MANIFEST
    if not path.is_file():
        return None
    _check_inside(root, MANIFEST)
    if path.stat().st_size > MOST_MANIFEST:
        raise damaged(root, f"{MANIFEST} has {path.stat().st_size:,} bytes, of at most {MOST_MANIFEST:,}")
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8; or nested without an end
        raise damaged(root, f"{MANIFEST} cannot be read: {error}") from error
    return listing if isinstance(listing, dict) and listing.get("format") == "anograd" else None


def _verified(root: Path, name: str, entry: Any) -> bytes:
    """Return the bytes of a listed file, once size and checksum agree with the manifest."""
    if name not in (TENSORS, TABLE):  # so that a manifest cannot point out of the folder
        raise damaged(root, f"{MANIFEST} lists {name!r}, which is no file of a model")
    path = root / name
    if not path.is_file():
        raise damaged(root, f"{name} is missing")
    _check_inside(root, name)
    wanted = entry if isinstance(entry, dict) else {}
    found = path.stat().st_size
    if found != wanted.get("bytes"):  # looked at before anything is read
        raise damaged(root, f"{name} has {found} bytes and should have {wanted.get('bytes')}")
    content = path.read_bytes()
    if _digest(content) != wanted.get("sha256"):
        raise damaged(root, f"the checksum of {name} differs")
    return content


def _check_inside(root: Path, name: str) -> None:
    if (root / name).resolve().parent != root.resolve():
        raise damaged(root, f"{name} is a link out of the folder")


def damaged(root: str | Path, reason: str) -> ValueError:
    """Return the error that refuses a model's folder, for one reason."""
    return ValueError(
        f"the model in {str(root)!r} is damaged: {reason}; copy it again or save the detector anew"
    )


def _own_digest(listing: dict[str, Any]) -> str:
    """Return the checksum of all that a manifest says, the checksum itself aside."""
    said = {key: value for key, value in listing.items() if key != "sha256"}
    return _digest(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
