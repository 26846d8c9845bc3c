"""Protocols: from a published data set to rows to learn from, what is known of them, and rows to be tested.

Each is a frozen dataclass of its options, and every result line names both. Clean: no row that is learned
from as normal is anomalous. Contaminated: some are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import ceil
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from anograd.bench.entrants import Known, Rows
from anograd.bench.readers import Loaded
from anograd.bench.sets import DataSet

Mask = NDArray[np.bool_]
Array = NDArray[Any]


@dataclass(frozen=True)
class Split:
    """Rows to learn from and to be tested on, scaled, float32.

    Parameters
    ----------
    rows : ndarray, (n, ...)
        To learn from.
    known : ndarray of int8, (n,)
        1 marks a known anomaly.
    test : ndarray, (m, ...)
    odd : ndarray of bool, (m,)
        Which test rows are anomalous.
    regime : {"clean", "contaminated"}
    parts : mapping of str to ndarray of bool (m,)
        Parts of the test rows that are measured besides, by the ending that their measures get.
    choosing : ndarray of bool (m,), optional
        Test rows by which a threshold is chosen; F1 is then measured on the others.
    """

    rows: Rows
    known: Known
    test: Rows
    odd: Mask
    regime: str
    parts: Mapping[str, Mask] = field(default_factory=dict)
    choosing: Mask | None = None

    def flat(self) -> Split:
        """Return the same with each row laid out as one line, (n, p)."""
        if self.rows.ndim == 2:
            return self
        rows, test = (x.reshape(len(x), -1) for x in (self.rows, self.test))
        return Split(rows, self.known, test, self.odd, self.regime, self.parts, self.choosing)


class Protocol(ABC):
    """From a data set and a seed to a split."""

    images: ClassVar[bool] = False  # whether it is for sets of images only

    def __post_init__(self) -> None:
        """Raise ValueError where an option is of another kind than its default."""
        for option in fields(self):  # type: ignore[arg-type]
            value, default = getattr(self, option.name), option.default
            if isinstance(default, str) or (value is None and default is None):
                continue
            kinds, wanted = _kind_of(default)
            if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
                raise ValueError(f"{option.name} = {value!r}: {wanted} is wanted")

    def check(self, data: DataSet, name: str) -> None:  # noqa: B027
        """Raise ValueError where the protocol cannot be followed on a data set."""

    @property
    def knows(self) -> bool:
        """Whether some anomalies are known."""
        return False

    @abstractmethod
    def split(self, data: DataSet, loaded: Loaded, seed: int) -> Split:
        """Return the split that a seed draws."""


@dataclass(frozen=True)
class OneClass(Protocol):
    """GradCon's: one class's training images are learned from, the test images of all classes are scored.

    Parameters
    ----------
    inlier : int, default 0
        The normal class.
    outliers : {"all", "balanced"} or float, default "all"
        Test images of other classes: all of them; as many as there are of the inlier class, drawn
        ("balanced", as in the authors' code); or drawn so that this share of the test is anomalous (0.1 to
        0.5 in the paper).

    References
    ----------
    Kwon et al.: Backpropagated Gradient Representations for Anomaly Detection. ECCV 2020, arXiv:2007.09507.
    """

    inlier: int = 0
    outliers: str | float = "all"
    images: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        share = isinstance(self.outliers, float) and 0 < self.outliers < 1
        if self.outliers not in ("all", "balanced") and not share:
            raise ValueError(f"outliers = {self.outliers!r}: write 'all', 'balanced', or a share such as 0.3")

    def check(self, data: DataSet, name: str) -> None:
        """Refuse tables, and classes that there are not."""
        if not data.images:
            raise ValueError(f"{name!r} is a table, and one-class is for images; take adbench or r2ad2")
        if not 0 <= self.inlier < data.classes:
            raise ValueError(f"inlier = {self.inlier}: {name!r} has the classes 0 to {data.classes - 1}")

    def split(self, data: DataSet, loaded: Loaded, seed: int) -> Split:
        """Return one class's training images, and test images of all."""
        train, kinds, test, test_kinds = _official(loaded)
        odd = test_kinds != self.inlier
        kept = np.arange(len(test))
        rng = np.random.default_rng(seed)
        if self.outliers != "all":
            share = 0.5 if self.outliers == "balanced" else float(self.outliers)
            wanted = round((~odd).sum() * share / (1 - share))
            drawn = rng.choice(np.flatnonzero(odd), min(wanted, int(odd.sum())), replace=False)
            kept = np.sort(np.concatenate([np.flatnonzero(~odd), drawn]))
        rows = _bright(train[kinds == self.inlier])
        choosing = None
        if isinstance(self.outliers, float):
            choosing = rng.permutation(len(kept)) < len(kept) // 2
        known = np.zeros(len(rows), dtype=np.int8)
        return Split(rows, known, _bright(test[kept]), odd[kept], "clean", choosing=choosing)


@dataclass(frozen=True)
class R2AD2(Protocol):
    """R2-AD2's: normal rows, some known anomalies; 20 % of a table is tested, or the official test set.

    Rows are scaled from the normal rows' minimum..maximum to 0..1 and nothing is clipped; images / 255.

    Parameters
    ----------
    known : int, default 100
        Known anomalies, or fewer where there are fewer.
    pollution : float, default 0
        Share of the rows learned from as normal that are anomalous.
    transfer : bool, default False
        Whether known anomalies come from some classes only, while all are tested.
    rows : int, optional
        Normal rows at most, drawn; 5,000 for images where left out, else all.

    References
    ----------
    Schulze et al.: R2-AD2. ECML PKDD 2022, arXiv:2206.10259. Its published code fixes the test rows (seed 42)
    and leaves 5 % of the others out as validation.
    """

    known: int = 100
    pollution: float = 0.0
    transfer: bool = False
    rows: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows = {self.rows}: a number of rows from 1 is wanted, or none for all")
        if self.known < 0 or not 0 <= self.pollution < 0.5:
            raise ValueError(
                f"known = {self.known}, pollution = {self.pollution}: wanted is a number of rows from 0, and "
                "a share from 0 to below 0.5"
            )

    @property
    def knows(self) -> bool:
        """Whether some anomalies are known."""
        return self.known > 0

    def check(self, data: DataSet, name: str) -> None:
        """Refuse transfer where there is one kind of anomalies."""
        if self.transfer and not data.unlike:
            raise ValueError(f"transfer = true: {name!r} has one kind of anomalies")

    def split(self, data: DataSet, loaded: Loaded, seed: int) -> Split:
        """Return normal rows and known anomalies, and test rows."""
        rng = np.random.default_rng(seed)
        train, kinds, most = loaded.rows, loaded.kinds, self.rows
        if loaded.test is None or loaded.test_kinds is None:
            train, test, kinds, test_kinds = train_test_split(train, kinds, test_size=0.2, random_state=42)
        else:
            test, test_kinds = loaded.test, loaded.test_kinds
        if data.images:
            most = 5000 if most is None else most
        else:
            train, _, kinds, _ = train_test_split(train, kinds, test_size=0.05, random_state=seed)
        normal = np.isin(kinds, data.normal)
        pool = np.flatnonzero(np.isin(kinds, data.unlike) if self.transfer else ~normal)
        known = rng.choice(pool, min(self.known, len(pool)), replace=False)
        learned = np.flatnonzero(normal)
        if most is not None and len(learned) > most:
            learned = rng.permutation(learned)[:most]
        others = np.setdiff1d(np.flatnonzero(~normal), known)
        wanted = round(len(learned) * self.pollution / (1 - self.pollution))
        if wanted > len(others):
            raise ValueError(
                f"pollution = {self.pollution} asks for {wanted} unlabelled anomalies beside {len(known)} "
                f"known ones, and {len(others)} are left: ask for less of either"
            )
        hidden = rng.choice(others, wanted, replace=False) if wanted else others[:0]
        parts = (train[learned], train[hidden], train[known], test)
        scaled = [_bright(part) for part in parts] if data.images else _scaled(*parts)
        rows = np.concatenate(scaled[:3])
        labels = np.repeat([0, 1], [len(learned) + len(hidden), len(known)]).astype(np.int8)
        odd = ~np.isin(test_kinds, data.normal)
        rare = np.isin(test_kinds, [kind for kind in ("r2l", "u2r") if kind in test_kinds])
        kinds_of_test = {"rare": rare | ~odd} if rare.any() else {}
        regime = "contaminated" if len(hidden) else "clean"
        return Split(rows, labels, scaled[3], odd, regime, kinds_of_test)


@dataclass(frozen=True)
class ADBench(Protocol):
    """ADBench's: 70 % are learned from, anomalies among them unlabelled but for a share; 30 % are tested.

    Sets of more than 10,000 rows are drawn from. A set of fewer than 1,000 is drawn from with replacement up
    to 1,000, before it is split, so that some of its test rows are copies of rows learned from: that is the
    published protocol, and `clean` ends it. Rows are scaled from the minimum..maximum of what is learned
    from to 0..1.

    Parameters
    ----------
    labelled : float, default 0
        Share of the training anomalies that are known, at least one.
    clean : bool, default False
        Unlabelled anomalies are taken out of the rows learned from, and no row is drawn twice.

    References
    ----------
    Han et al.: ADBench. NeurIPS 2022, arXiv:2206.09426.
    """

    labelled: float = 0.0
    clean: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.labelled <= 1:
            raise ValueError(f"labelled = {self.labelled}: a share from 0 to 1 is wanted, such as 0.05")

    @property
    def knows(self) -> bool:
        """Whether some anomalies are known."""
        return self.labelled > 0

    def split(self, data: DataSet, loaded: Loaded, seed: int) -> Split:
        """Return rows to learn from, a part of the anomalies known, and test rows."""
        rng = np.random.default_rng(seed)
        rows, odd = loaded.rows.reshape(len(loaded.rows), -1), ~np.isin(loaded.kinds, data.normal)
        if len(rows) < 1000 and not self.clean:
            drawn = rng.choice(len(rows), 1000)
            rows, odd = rows[drawn], odd[drawn]
        elif len(rows) > 10_000:
            drawn = rng.choice(len(rows), 10_000, replace=False)
            rows, odd = rows[drawn], odd[drawn]
        train, test, train_odd, test_odd = train_test_split(
            rows, odd, test_size=0.3, random_state=seed, stratify=odd
        )
        anomalous = np.flatnonzero(train_odd)
        known = np.zeros(len(train), dtype=np.int8)
        known[rng.choice(anomalous, ceil(self.labelled * len(anomalous)), replace=False)] = 1
        kept = ~train_odd | (known == 1) if self.clean else np.ones(len(train), dtype=bool)
        train, known = train[kept], known[kept]
        low, high = train.min(0), train.max(0)
        width = np.where(high > low, high - low, 1)
        scaled = (((part - low) / width).astype(np.float32) for part in (train, test))
        regime = "clean" if self.clean else "contaminated"
        return Split(next(scaled), known, next(scaled), test_odd, regime)


def _kind_of(default: object) -> tuple[Any, str]:
    """Return what an option may be, going by its default, and what to call that; true is no number."""
    if isinstance(default, bool):
        return bool, "true or false"
    return (int | float, "a number") if isinstance(default, float) else (int, "a whole number")


def _official(loaded: Loaded) -> tuple[Array, Array, Array, Array]:
    """Return training and test rows with their classes; of a set without an official test, 20 % (seed 42)."""
    if loaded.test is not None and loaded.test_kinds is not None:
        return loaded.rows, loaded.kinds, loaded.test, loaded.test_kinds
    train, test, kinds, test_kinds = train_test_split(
        loaded.rows, loaded.kinds, test_size=0.2, random_state=42, stratify=loaded.kinds
    )
    return train, kinds, test, test_kinds


def _bright(images: Array) -> Rows:
    return (images / np.float32(255)).astype(np.float32)


def _scaled(normal: Array, *others: Array) -> Sequence[Rows]:
    low, high = normal.min(0), normal.max(0)
    width = np.where(high > low, high - low, 1)
    return [((rows - low) / width).astype(np.float32) for rows in (normal, *others)]


PROTOCOLS: dict[str, type[Protocol]] = {"one-class": OneClass, "r2ad2": R2AD2, "adbench": ADBench}
