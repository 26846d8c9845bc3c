"""Sets of ADBench to choose settings by, with splits that no reported table has.

Clean: half of the anomalies and a quarter of the normal rows are tested; rows are scaled from
minimum..maximum of the normal rows that are learned from to 0..1, and nothing is clipped. Contaminated: as in
ADBench's protocol, with seeds of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from anograd.bench import sets
from anograd.bench.protocols import ADBench, Split

SETS = tuple(
    f"adbench/{name}"
    for name in (
        "1_ALOI", "2_annthyroid", "7_Cardiotocography", "8_celeba", "19_landsat", "22_magic.gamma",
        "24_mnist", "31_satimage-2", "33_skin", "35_SpamBase", "38_thyroid", "44_Wilt", "47_yeast", "29_Pima",
        "18_Ionosphere",
    )
)  # fmt: skip
FIRST_SEED = 107  # of contaminated rows
# Normal rows to learn from and to test on, anomalies for both, known ones among them.
MOST_NORMAL, MOST_TESTED, MOST_ANOMALIES, KNOWN = 6000, 3000, 2000, 50


def split(name: str, seed: int, known: int = KNOWN, transfer: bool = False) -> Split:
    """Return a set, split.

    Parameters
    ----------
    name : str
        With its number, as in ADBench's files, such as "adbench/2_annthyroid".
    seed : int
    known : int, default 50
        Known anomalies, or fewer where there are fewer.
    transfer : bool, default False
        Whether the anomalies are put into two clusters: known ones come from the larger, and those of the
        other are tested (all of them where the other has fewer than 5).
    """
    loaded = sets.load(registered(name))
    rows, odd = loaded.rows, loaded.kinds
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
    pool = pool[:known]
    labels = np.repeat([0, 1], [len(learned), len(pool)]).astype(np.int8)
    truth = np.repeat([False, True], [len(tested), len(others)])
    test = np.concatenate([tested, others])
    return Split(np.concatenate([learned, pool]), labels, test, truth, "clean")


def contaminated(name: str, seed: int) -> Split:
    """Return a set, split as in ADBench's protocol: 1 % of the anomalies known, the others among the rows.

    Parameters
    ----------
    name : str
        As in `split`.
    seed : int
        What is drawn is what the protocol draws for 107 more.
    """
    own = registered(name)
    return ADBench(labelled=0.01).split(sets.find(own), sets.load(own), FIRST_SEED + seed)


def registered(name: str) -> str:
    """Return what `anograd bench` calls a set, without the number: "adbench/annthyroid"."""
    return f"adbench/{name.partition('_')[2]}"


def _scale(normal: NDArray[Any], *others: NDArray[Any]) -> list[NDArray[np.float32]]:
    low, high = normal.min(0), normal.max(0)
    width = np.where(high > low, high - low, 1)
    return [((rows - low) / width).astype(np.float32) for rows in (normal, *others)]
