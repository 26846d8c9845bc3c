"""How each published data set lies in its files, turned into rows and the class of each row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# NSL-KDD's four kinds of attacks: https://www.unb.ca/cic/datasets/nsl.html, and the test set's own names.
ATTACKS = {
    "dos": "back land neptune pod smurf teardrop apache2 udpstorm processtable mailbomb worm",
    "probe": "satan ipsweep nmap portsweep mscan saint",
    "r2l": "guess_passwd ftp_write imap phf multihop warezmaster warezclient spy xlock xsnoop snmpguess "
    "snmpgetattack httptunnel sendmail named",
    "u2r": "buffer_overflow loadmodule perl rootkit sqlattack xterm ps",
}
COVERTYPE_PARTS = ("first20000", "random10000", "class3_class4")
Array = NDArray[Any]


@dataclass(frozen=True)
class Loaded:
    """A data set as it was published: nothing scaled, nothing drawn.

    Parameters
    ----------
    rows : ndarray, (n, p) of numbers or (n, C, H, W) of uint8
    kinds : ndarray, (n,)
        The class of each row.
    test : ndarray or None
        Rows of the official test set, where there is one.
    test_kinds : ndarray or None
    """

    rows: Array
    kinds: Array
    test: Array | None = None
    test_kinds: Array | None = None


def digits() -> Loaded:
    """Return scikit-learn's digits, (n, 1, 8, 8), values 0 to 255."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return Loaded((found.images[:, None] * 15.9375).astype(np.uint8), found.target)


def breast_cancer() -> Loaded:
    """Return scikit-learn's breast cancer table; class 0 is malignant."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    return Loaded(found.data, found.target)


def wine() -> Loaded:
    """Return scikit-learn's wine table; three cultivars."""
    from sklearn.datasets import load_wine

    found = load_wine()
    return Loaded(found.data, found.target)


def archive(path: Path) -> Loaded:
    """Return images out of an archive with x_train, y_train, x_test, y_test."""
    with np.load(path, allow_pickle=False) as found:
        train, test = found["x_train"][:, None], found["x_test"][:, None]
        return Loaded(train, found["y_train"], test, found["y_test"])


def adbench(path: Path) -> Loaded:
    """Return a table of ADBench; class 1 is anomalous."""
    with np.load(path, allow_pickle=False) as found:
        return Loaded(found["X"].astype(float), found["y"].astype(int))


def cifar10(folder: Path) -> Loaded:
    """Return CIFAR-10 as (n, 3, 28, 28): shrunk from 32 x 32 by Lanczos, as GradCon's code does."""
    (rows, kinds), (test, test_kinds) = (mosaics(folder, split) for split in ("train", "test"))
    return Loaded(shrunk(rows), kinds, shrunk(test), test_kinds)


def mosaics(folder: Path, split: str) -> tuple[Array, Array]:
    """Return CIFAR-10 images as they are, (n, 3, 32, 32), and their classes."""
    from PIL import Image

    images, kinds = [], []
    for kind, name in enumerate(CIFAR10):
        mosaic = np.asarray(Image.open(folder / f"{split}_{name}.webp"))
        tiles = mosaic.reshape(-1, 32, 50, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
        images.append(tiles.transpose(0, 3, 1, 2))
        kinds.append(np.full(len(tiles), kind, dtype=np.uint8))
    return np.concatenate(images), np.concatenate(kinds)


def shrunk(images: Array) -> Array:
    """Return colour images (n, 3, H, W) of uint8 at 28 x 28."""
    from PIL import Image

    tiles = images.transpose(0, 2, 3, 1)
    small = [Image.fromarray(tile).resize((28, 28), Image.Resampling.LANCZOS) for tile in tiles]
    return np.stack([np.asarray(image) for image in small]).transpose(0, 3, 1, 2)


def creditcard(path: Path) -> Loaded:
    """Return credit card payments without their time; class 1 is fraud."""
    columns, kinds = _csv(path, "Class", "Time")
    return Loaded(columns, kinds)


def covtype(folder: Path) -> Loaded:
    """Return the parts of Covertype that are at hand, each row once; classes 1 to 7."""
    import polars

    parts = [polars.read_csv(_unpacked(folder / f"covtype_{part}.csv.xz")) for part in COVERTYPE_PARTS]
    frame = polars.concat(parts, how="vertical_relaxed").unique(keep="first", maintain_order=True)
    kinds = frame["Cover_Type"].to_numpy()
    return Loaded(frame.drop("Cover_Type").to_numpy().astype(float), kinds)


def nsl_kdd(folder: Path) -> Loaded:
    """Return NSL-KDD, nominal columns one-hot: 122 columns; "normal" and four kinds of attacks."""
    described = json.loads((folder / "columns.json").read_text())
    (rows, kinds), (test, test_kinds) = (
        _nsl_kdd(folder / f"{file}.txt.xz", described) for file in ("KDDTrain+", "KDDTest+")
    )
    return Loaded(rows, kinds, test, test_kinds)


def _nsl_kdd(path: Path, described: dict[str, Any]) -> tuple[Array, Array]:
    import polars

    names, nominal = described["columns"], described["nominal_values"]
    frame = polars.read_csv(_unpacked(path), has_header=False, new_columns=names, infer_schema_length=None)
    columns = []
    for name in names[:-2]:  # label and difficulty come last
        values = frame[name].to_numpy()
        if name in nominal and set(nominal[name]) != {"0", "1"}:
            columns += [(values == value).astype(float) for value in nominal[name]]
        else:
            columns.append(values.astype(float))
    kind_of = {name: kind for kind, attacks in ATTACKS.items() for name in attacks.split()}
    kinds = [kind_of.get(label, label) for label in frame["label"].to_list()]
    return np.stack(columns, 1), np.array(kinds)


def _csv(path: Path, label: str, *dropped: str) -> tuple[Array, Array]:
    import polars

    frame = polars.read_csv(_unpacked(path), infer_schema_length=None)
    return frame.drop(label, *dropped).to_numpy().astype(float), frame[label].to_numpy()


def _unpacked(path: Path) -> bytes:
    import lzma

    return lzma.decompress(path.read_bytes())
