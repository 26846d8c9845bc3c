"""What a detector was given -> the float rows its network takes, the same way at fit and at scoring."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor

from anograd.data import Array, Pixels, check_finite, check_images, is_frame, to_array
from anograd.table import Table

IMAGES, TABLE, RAW = "images", "table", "raw"
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
    """

    kind: str
    shape: tuple[int, ...]
    table: Table | None = None
    pixels: Pixels | None = None

    def transform(self, estimator: BaseEstimator, X: Any) -> Tensor:
        """Return rows to score, (n, *shape), after checking that they are like the training rows.

        Raises
        ------
        ValueError
            For other columns, another image size, another number family, NaN or infinity.
        """
        X = to_array(X)
        if self.table is not None:
            if not is_frame(X):
                X = validate_data(estimator, X, reset=False, dtype="numeric", ensure_all_finite=False)
                if self.table.names_in is not None:
                    warnings.warn(
                        f"X does not have valid feature names, but {type(estimator).__name__} was fitted "
                        f"with feature names: its columns are taken to be {', '.join(self.table.names_in)}",
                        UserWarning,
                        stacklevel=3,
                    )
            return torch.from_numpy(self.table.transform(X))
        rows = check_images(X) if self.pixels is not None else _raw(X)
        if rows.shape[1:] != self.shape:
            raise ValueError(
                f"the rows have shape {_shape(rows.shape[1:])}, but the detector was fitted on "
                f"{_shape(self.shape)}: resize them, or fit on rows of this shape"
            )
        return torch.from_numpy(self.pixels.transform(rows) if self.pixels is not None else rows)


def encode(
    estimator: BaseEstimator, X: Any, normal: Array, *, raw: bool, missing: Missing
) -> tuple[Encoder, Tensor]:
    """Return an encoder fitted on the normal rows of `X`, and all rows encoded by it.

    Sets ``n_features_in_`` and, for a frame, ``feature_names_in_`` on the estimator, as scikit-learn does.

    Parameters
    ----------
    estimator : BaseEstimator
    X : array, tensor, frame or Dataset, (n, ...)
    normal : ndarray of bool, (n,)
        Rows that scales and levels are learned from.
    raw : bool
        Hand the rows over as they are: the network is the user's own.
    missing : {"refuse", "impute"}
    """
    if raw:
        rows = _raw(X)
        estimator.n_features_in_ = int(np.prod(rows.shape[1:]))
        return Encoder(RAW, rows.shape[1:]), torch.from_numpy(rows)
    if is_frame(X) or (X if hasattr(X, "ndim") else np.asarray(X)).ndim <= 2:
        if not is_frame(X):
            X = validate_data(estimator, X, dtype="numeric", ensure_all_finite=False, ensure_min_samples=2)
        table = Table(missing=missing).fit(X, normal)
        estimator.n_features_in_ = table.n_in
        if table.names_in is not None:
            estimator.feature_names_in_ = np.array(table.names_in, dtype=object)
        encoded = torch.from_numpy(table.transform(X))
        return Encoder(TABLE, tuple(encoded.shape[1:]), table=table), encoded
    images = check_images(X)
    estimator.n_features_in_ = int(np.prod(images.shape[1:]))
    pixels = Pixels.fit(images[normal])
    return Encoder(IMAGES, images.shape[1:], pixels=pixels), torch.from_numpy(pixels.transform(images))


def _raw(X: Any) -> Array:
    rows = np.asarray(X)
    if rows.ndim == 0 or len(rows) == 0:
        raise ValueError(f"X has shape {rows.shape}: at least one row is wanted, (n, ...)")
    if rows.dtype.kind in "USO":
        raise ValueError(f"X holds {rows.dtype}: the network that was handed in takes numbers")
    check_finite(rows)
    return np.ascontiguousarray(rows, dtype=np.float32 if rows.dtype.kind == "f" else np.int64)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
