"""The R2-AD2 paper's data sets as far as they are at hand, with its splits, and others for development.

Local files found by ``ANOGRAD_DATA``. Rows are scaled from minimum..maximum of the normal training rows to
0..1 and nothing is clipped; images are divided by 255.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.model_selection import train_test_split

import images

SETS = ("mammography", "creditcard", "covtype", "nsl_kdd", "mnist")
TRANSFER: dict[str, tuple[Any, ...]] = {"covtype": (4, 5), "nsl_kdd": ("dos", "probe"), "mnist": (4, 5, 6)}
RARE = ("r2l", "u2r")  # NSL-KDD: the attacks that are few in training, and mostly of other names in the test
DEVELOPMENT = tuple(
    f"adbench/{name}"
    for name in (
        "1_ALOI", "2_annthyroid", "7_Cardiotocography", "8_celeba", "19_landsat", "22_magic.gamma",
        "24_mnist", "31_satimage-2", "33_skin", "35_SpamBase", "38_thyroid", "44_Wilt", "47_yeast", "29_Pima",
        "18_Ionosphere",
    )
)  # fmt: skip
TEST_SHARE, TEST_SEED, VALIDATION_SHARE = 0.2, 42, 0.05
MNIST_ROWS = 5000
# Of the development sets: normal rows to train on and to test on, anomalies for both, known ones among them.
MOST_NORMAL, MOST_TESTED, MOST_ANOMALIES, DEVELOPMENT_KNOWN = 6000, 3000, 2000, 50
ATTACKS = {
    "dos": "back land neptune pod smurf teardrop apache2 udpstorm processtable mailbomb worm",
    "probe": "satan ipsweep nmap portsweep mscan saint",
    "r2l": "guess_passwd ftp_write imap phf multihop warezmaster warezclient spy xlock xsnoop snmpguess "
    "snmpgetattack httptunnel sendmail named",
    "u2r": "buffer_overflow loadmodule perl rootkit sqlattack xterm ps",
}
Rows = NDArray[np.float32]
Kinds = NDArray[Any]


@dataclass(frozen=True)
class Split:
    """Rows to learn from and to be tested on, scaled, float32.

    Parameters
    ----------
    normal : ndarray, (n, ...)
        To learn from; none of them is anomalous (clean regime).
    known : ndarray, (a, ...)
        Anomalies that a detector may learn from.
    test : ndarray, (m, ...)
    odd : ndarray of bool, (m,)
        Which test rows are anomalous.
    kinds : ndarray, (m,)
        The class of each test row.
    """

    normal: Rows
    known: Rows
    test: Rows
    odd: NDArray[np.bool_]
    kinds: Kinds

    def labelled(self) -> tuple[Rows, NDArray[np.int64]]:
        """Return normal rows and known anomalies together, and their labels, 1 = anomalous."""
        labels = np.repeat([0, 1], [len(self.normal), len(self.known)])
        return np.concatenate([self.normal, self.known]), labels

    def flat(self) -> Split:
        """Return the same with each row flattened, (n, p)."""
        rows = (x.reshape(len(x), -1) for x in (self.normal, self.known, self.test))
        return Split(*rows, self.odd, self.kinds)


def split(name: str, seed: int, known: int = 100, transfer: bool = False) -> Split:
    """Return a data set split as in the R2-AD2 paper.

    Parameters
    ----------
    name : str
        One of `SETS`, or "adbench/NAME" for a development set, which is split in another way.
    seed : int
        Of the run: draws the validation rows that are left out, and the known anomalies.
    known : int, default 100
        Known anomalies, or fewer where there are fewer.
    transfer : bool, default False
        Whether known anomalies are only of some classes, while all are tested.
    """
    if not images.FOLDER.is_dir():
        raise SystemExit(f"no data folder at {images.FOLDER}: set ANOGRAD_DATA")
    if name.startswith("adbench/"):
        return _development(name, seed, min(known, DEVELOPMENT_KNOWN), transfer)
    if transfer and name not in TRANSFER:
        raise SystemExit(f"{name} has one kind of anomalies: no transfer")
    rng = np.random.default_rng(seed)
    if name == "mnist":
        return _mnist(rng, known, transfer)
    if name == "nsl_kdd":
        (train, kinds), (test, test_kinds) = _nsl_kdd("KDDTrain+"), _nsl_kdd("KDDTest+")
        normals: Sequence[Any] = ("normal",)
    else:
        rows, all_kinds, normals = _table(name)
        train, test, kinds, test_kinds = train_test_split(
            rows, all_kinds, test_size=TEST_SHARE, random_state=TEST_SEED
        )
    train, _, kinds, _ = train_test_split(train, kinds, test_size=VALIDATION_SHARE, random_state=seed)
    normal, drawn = _draw(rng, kinds, normals, known, TRANSFER[name] if transfer else None)
    scaled = _scale(train[normal], train[drawn], test)
    return Split(*scaled, ~np.isin(test_kinds, normals), test_kinds)


def _draw(
    rng: np.random.Generator, kinds: Kinds, normals: Sequence[Any], known: int, only: Sequence[Any] | None
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which rows are normal, and the numbers of the known anomalies."""
    normal = np.isin(kinds, normals)
    pool = np.flatnonzero(~normal if only is None else np.isin(kinds, only))
    return normal, rng.choice(pool, min(known, len(pool)), replace=False)


def _scale(normal: NDArray[Any], *others: NDArray[Any]) -> list[Rows]:
    low, high = normal.min(0), normal.max(0)
    width = np.where(high > low, high - low, 1)
    return [((rows - low) / width).astype(np.float32) for rows in (normal, *others)]


@lru_cache(maxsize=2)
def _table(name: str) -> tuple[NDArray[Any], Kinds, Sequence[Any]]:
    """Return rows, the class of each, and which classes are normal."""
    import pandas

    if name == "mammography":
        rows, odd = _adbench("23_mammography")
        return rows, odd, (0,)
    if name == "creditcard":
        frame = pandas.read_csv(images.FOLDER / "creditcard" / "creditcard_subset.csv.xz")
        return frame.drop(columns=["Class", "Time"]).to_numpy(float), frame["Class"].to_numpy(), (0,)
    if name == "covtype":
        files = ("first20000", "random10000", "class3_class4")
        parts = [pandas.read_csv(images.FOLDER / "covtype" / f"covtype_{file}.csv.xz") for file in files]
        frame = pandas.concat(parts).drop_duplicates()
        return frame.drop(columns="Cover_Type").to_numpy(float), frame["Cover_Type"].to_numpy(), (1, 2, 3)
    raise SystemExit(f"no data set {name!r}: name one of {', '.join(SETS)}, or adbench/NAME")


@lru_cache(maxsize=2)
def _nsl_kdd(file: str) -> tuple[NDArray[np.float64], Kinds]:
    """Return rows of 122 columns, nominal ones one-hot, and the kind of each row."""
    import pandas

    folder = images.FOLDER / "nsl_kdd"
    described = json.loads((folder / "columns.json").read_text())
    names, nominal = described["columns"], described["nominal_values"]
    frame = pandas.read_csv(folder / f"{file}.txt.xz", header=None, names=names)
    columns = []
    for name in names[:-2]:  # label and difficulty come last
        values = frame[name].to_numpy()
        if name in nominal and set(nominal[name]) != {"0", "1"}:
            columns += [(values == value).astype(float) for value in nominal[name]]
        else:
            columns.append(values.astype(float))
    kind_of = {name: kind for kind, attacks in ATTACKS.items() for name in attacks.split()}
    kinds = np.array([kind_of[label] if label != "normal" else label for label in frame["label"]])
    return np.stack(columns, 1), kinds


def _mnist(rng: np.random.Generator, known: int, transfer: bool) -> Split:
    """Digits 0 to 3 are normal; images (n, 1, 28, 28)."""
    x_train, y_train, x_test, y_test = images.load("mnist")
    normals = range(4)
    normal, drawn = _draw(rng, y_train, normals, known, TRANSFER["mnist"] if transfer else None)
    learned = rng.permutation(np.flatnonzero(normal))[:MNIST_ROWS]
    rows = ((x / 255).astype(np.float32) for x in (x_train[learned], x_train[drawn], x_test))
    return Split(*rows, ~np.isin(y_test, normals), y_test)


@lru_cache(maxsize=2)
def _adbench(name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    with np.load(images.FOLDER / "adbench" / "classical" / f"{name}.npz", allow_pickle=False) as archive:
        return archive["X"].astype(float), archive["y"].astype(int)


def _development(name: str, seed: int, known: int, transfer: bool) -> Split:
    """Return a set to choose settings by: half of the anomalies and a quarter of the normal rows are tested.

    With transfer the anomalies are put into two clusters: known ones come from the larger, and those of
    the other are tested (all of them where the other has fewer than 5).
    """
    rows, odd = _adbench(name.removeprefix("adbench/"))
    rng = np.random.default_rng(seed)
    normal = rng.permutation(np.flatnonzero(odd == 0))[: MOST_NORMAL + MOST_TESTED]
    anomalous = rng.permutation(np.flatnonzero(odd == 1))[:MOST_ANOMALIES]
    quarter, half = max(len(normal) // 4, 1), len(anomalous) // 2
    learned, tested, others, pool = _scale(
        rows[normal[quarter:]], rows[normal[:quarter]], rows[anomalous[:half]], rows[anomalous[half:]]
    )
    if transfer:
        both = np.clip(np.concatenate([others, pool]), -3, 3)
        cluster = KMeans(2, n_init=3, random_state=seed).fit(both).labels_
        larger = int(np.bincount(cluster[half:], minlength=2).argmax())
        pool, unlike = pool[cluster[half:] == larger], cluster[:half] != larger
        others = others[unlike] if unlike.sum() >= 5 else others
    truth = np.repeat([False, True], [len(tested), len(others)])
    return Split(learned, pool[:known], np.concatenate([tested, others]), truth, truth.astype(int))
