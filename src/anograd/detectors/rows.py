"""What a detector was given -> the float rows its network takes, the same way at fit and at scoring."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor
from torch.utils.data import Dataset

from anograd.columns import check_names
from anograd.data import (
    Array,
    Pixels,
    check_images,
    frame_names,
    is_frame,
    single,
    to_array,
)
from anograd.finite import check_finite
from anograd.items import BLOCK, FLOAT, beyond, blocks
from anograd.lazy import collect, is_lazy
from anograd.spill import Rows
from anograd.table import Table
from anograd.target import real_type

IMAGES, TABLE, RAW = "images", "table", "raw"
FEATURES = ("n_features_in_", "feature_names_in_")
Missing = Literal["refuse", "impute"]


@dataclass
class Encoder:
    """Remembers what the training rows were: a table, images, or rows for a network that was handed in.

    Attributes
    ----------
    kind : {"images", "table", "raw"}
    shape : tuple of int
        Shape of one encoded row.
    table : Table or None
    pixels : Pixels or None
    names : list of str or None
        Of the columns of a frame whose rows go to a network that was handed in.
    double : bool
        Whether rows stay in double precision: that network is, and they were when it was fitted.
    """

    kind: str
    shape: tuple[int, ...]
    table: Table | None = None
    pixels: Pixels | None = None
    names: list[str] | None = None
    double: bool = False

    def texts(self) -> list[str]:
        """Return the named columns whose cells are categories, whatever they look like."""
        table = self.table
        return [] if table is None or table.names_in is None else [table.names_in[j] for j in table.levels()]

    def pieces(self, estimator: BaseEstimator, X: Any, memory: int) -> Iterable[Tensor]:
        """Return rows to score, (b, *shape): in pieces where `X` need not fit into memory, else all at once.

        Raises
        ------
        ValueError
            As in `transform`.
        """
        if self.table is not None and is_lazy(X):
            return map(torch.from_numpy, self.table.stream(X))
        if beyond(X, memory, whole_numbers=self.kind != RAW):
            return (self.transform(estimator, block) for _, block in blocks(X))
        return [self.transform(estimator, X)]

    def transform(self, estimator: BaseEstimator, X: Any) -> Tensor:
        """Return rows to score, (n, *shape), after checking that they are like the training rows.

        Raises
        ------
        ValueError
            For other columns, another image size, another number family, NaN or infinity.
        """
        X = to_array(X)
        if self.table is not None:
            return torch.from_numpy(self.table.transform(self._framed(estimator, X)))
        if (given := frame_names(X)) is not None:
            check_names(given, self.names)
        rows = check_images(X) if self.pixels is not None else _raw(X, self.double)
        if rows.ndim == 1 and self.shape:
            raise ValueError(f"X has shape {rows.shape}: rows are wanted, (n, ...), a single one as X[None]")
        if rows.shape[1:] != self.shape:
            raise ValueError(self.unlike(rows.shape[1:]))
        return torch.from_numpy(self.pixels.transform(rows) if self.pixels is not None else rows)

    def unlike(self, shape: tuple[int, ...]) -> str:
        """Return what is said of rows of another shape than those of the fit."""
        what = "resize them"
        if self.pixels is not None and shape[1:] == self.shape[1:]:  # only the colours are others
            what = f"convert them, such as image.convert({'L' if self.shape[0] == 1 else 'RGB'!r})"
        return (
            f"the rows have shape {_shape(shape)}, but the detector was fitted on {_shape(self.shape)}: "
            f"{what}, or fit on rows of this shape"
        )

    def sound(self, estimator: BaseEstimator, X: Any) -> tuple[Tensor, NDArray[np.int64], dict[int, str]]:
        """Return the rows that can be scored, their places in `X`, and why each other one cannot.

        Rows of images are all of them, or an error.
        """
        if self.table is None:
            rows = self.transform(estimator, X)
            return rows, np.arange(len(rows)), {}
        encoded, kept, why = self.table.sound(self._framed(estimator, to_array(X)))
        return torch.from_numpy(encoded), kept, why

    def _framed(self, estimator: BaseEstimator, X: Any) -> Any:
        """Return a frame as it is, and an array after checking its columns."""
        table = self.table
        assert table is not None
        if is_frame(X):
            return X
        X = check_array(X, dtype="numeric", ensure_all_finite=False, estimator=estimator)
        if table.names_in is not None:
            warnings.warn(
                f"X does not have valid feature names, but {type(estimator).__name__} was fitted "
                f"with feature names: its columns are taken to be {', '.join(table.names_in)}",
                UserWarning,
                stacklevel=4,
            )
        return X


def encode(
    estimator: BaseEstimator, X: Any, normal: Array, *, raw: bool, missing: Missing, memory: int
) -> tuple[Encoder, Rows]:
    """Return an encoder fitted on the normal rows of `X`, and all rows encoded by it.

    Sets ``n_features_in_`` and, for a frame, ``feature_names_in_`` on the estimator, as scikit-learn does.

    Parameters
    ----------
    estimator : BaseEstimator
    X : array, tensor, frame, lazy frame or Dataset, (n, ...)
    normal : ndarray of bool, (n,)
        Rows that scales and levels are learned from.
    raw : bool
        Hand the rows over as they are: the network is the user's own.
    missing : {"refuse", "impute"}
    memory : int
        Bytes that the encoded rows of a lazy frame or Dataset may take in RAM; more are kept in a temporary
        file.
    """
    with _refused_whole(estimator):
        return _encode(estimator, X, normal, raw=raw, missing=missing, memory=memory)


@contextmanager
def _refused_whole(estimator: BaseEstimator) -> Iterator[None]:
    """Let an estimator's attributes tell of the rows of its earlier fit, where these are refused."""
    here = vars(estimator)
    before = {name: here.pop(name) for name in FEATURES if name in here}
    try:
        yield
    except BaseException:
        for name in FEATURES:
            here.pop(name, None)
        here.update(before)
        raise


def _encode(
    estimator: BaseEstimator, X: Any, normal: Array, *, raw: bool, missing: Missing, memory: int
) -> tuple[Encoder, Rows]:
    if isinstance(X, Dataset):
        return _filed(estimator, X, normal, raw=raw, memory=memory)
    if raw:
        rows = _raw(X, real_type(cast(Any, estimator).target.module) is torch.float64)
        estimator.n_features_in_ = int(np.prod(rows.shape[1:]))
        if (names := frame_names(X)) is not None:
            estimator.feature_names_in_ = np.array(names, dtype=object)
        double = rows.dtype == np.float64
        return Encoder(RAW, rows.shape[1:], names=names, double=double), Rows.of(torch.from_numpy(rows))
    framed = is_frame(X) or is_lazy(X)
    if framed or _axes(X) <= 2:
        if not framed:
            X = validate_data(estimator, X, dtype="numeric", ensure_all_finite=False, ensure_min_samples=2)
        table = Table(missing=missing).fit(X, normal)
        estimator.n_features_in_ = table.n_in
        if table.names_in is not None:
            estimator.feature_names_in_ = np.array(table.names_in, dtype=object)
        encoder = Encoder(TABLE, (len(table.names_out),), table=table)
        if not is_lazy(X):
            return encoder, Rows.of(torch.from_numpy(table.transform(X)))
        streamed = Rows.allocate(len(normal), encoder.shape, memory)
        done = 0
        for piece in encoder.pieces(estimator, X, memory):
            streamed.write(done, piece)
            done += len(piece)
        return encoder, streamed
    images = check_images(X)
    estimator.n_features_in_ = int(np.prod(images.shape[1:]))
    pixels = Pixels.fit(images[normal])
    return Encoder(IMAGES, images.shape[1:], pixels=pixels), Rows.of(
        torch.from_numpy(pixels.transform(images))
    )


def _axes(X: Any) -> int:
    """Return how many axes an array or nested lists have; of rows of several shapes, those of the first."""
    with suppress(ValueError):
        return int((X if hasattr(X, "ndim") else np.asarray(X)).ndim)
    return 1 + np.ndim(X[0])


def _filed(
    estimator: BaseEstimator, X: Any, normal: Array, *, raw: bool, memory: int
) -> tuple[Encoder, Rows]:
    """Return what `encode` does, of a Dataset that is read once: scaled where it lies, in the file."""
    rows, low, high = None, np.inf, -np.inf
    for start, block in blocks(X):
        end = start + len(block)
        try:
            found = _raw(block) if raw else check_images(block)
        except ValueError as error:
            raise ValueError(f"of items {start} to {end - 1}, counted from {start}: {error}") from error
        if rows is None:
            rows, dtype = Rows.allocate(len(X), found.shape[1:], memory), found.dtype
        rows.write(start, torch.from_numpy(found.astype(np.float32, copy=False)))
        if normal[start:end].any():
            seen = found[normal[start:end]]
            low, high = min(low, float(seen.min())), max(high, float(seen.max()))
    assert rows is not None
    estimator.n_features_in_ = int(np.prod(rows.shape))
    if raw:
        return Encoder(RAW, rows.shape), rows
    pixels = Pixels.covering(dtype, low, high)
    step = max(1, BLOCK // (FLOAT * math.prod(rows.shape)))
    for start in range(0, len(rows), step):
        stored = rows.take(slice(start, start + step)).numpy().astype(dtype)
        rows.write(start, torch.from_numpy(pixels.transform(stored)))
    return Encoder(IMAGES, rows.shape, pixels=pixels), rows


def _raw(X: Any, double: bool = False) -> Array:
    if hasattr(X, "toarray"):
        raise ValueError("X is sparse; the network that was handed in takes dense rows: X = X.toarray()")
    rows = np.asarray(collect(X) if is_lazy(X) else X)
    if rows.ndim == 0 or len(rows) == 0:
        raise ValueError(f"X has shape {rows.shape}: at least one row is wanted, (n, ...)")
    if rows.dtype.kind not in "buif":
        raise ValueError(f"X holds {rows.dtype}: the network that was handed in takes numbers")
    check_finite(rows, raw=True)
    if rows.dtype.kind != "f":
        rows = rows.astype(np.int64, copy=False)
    elif not (double and rows.dtype == np.float64):
        rows = single(rows)
    # Torch warns of arrays that may not be written to, such as memory-mapped files: those are copied.
    return np.require(rows, requirements=["C", "W"])


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
