"""What a user has (a file, a frame, a tensor, a Dataset) becomes an array that has been looked at once."""

import numbers
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import _num_samples

from anograd.files import names as names
from anograd.files import read as read
from anograd.files import scan as scan
from anograd.finite import check_finite
from anograd.items import as_array, stacked
from anograd.lazy import count, is_lazy

Array = NDArray[Any]
LARGEST = float(np.finfo(np.float32).max)
FAR = 50.0  # times the range of the fit: pixels of 0..255 where it was 0..1
TOPS = {"bool": 1.0, "uint8": 255.0, "uint16": 65535.0}  # what becomes 1, by dtype
FAINTEST = 1 / 255  # floats that all lie below are in a unit of their own: in 0..1 they would be black


def is_frame(X: object) -> bool:
    """Return True for a pandas or polars DataFrame and for a pyarrow Table; none of them is imported."""
    return frame_library(X) is not None


def frame_library(X: object) -> str | None:
    """Return "pandas", "polars" or "pyarrow" for a frame of theirs or of a subclass, else None."""
    for kind in type(X).__mro__:
        library = kind.__module__.partition(".")[0]
        if (library, kind.__name__) in (
            ("pandas", "DataFrame"),
            ("polars", "DataFrame"),
            ("pyarrow", "Table"),
        ):
            return library
    return None


def frame_names(X: Any) -> list[str] | None:
    """Return what a frame's columns are called, None for anything else or where they are numbered from 0.

    Names that are no text, such as other numbers or the tuples of several header rows, are read as text.
    """
    if (library := frame_library(X)) is None:
        return None
    names = list(X.column_names if library == "pyarrow" else X.columns)
    numbered = all(isinstance(name, numbers.Integral) and name == j for j, name in enumerate(names))
    return None if numbered else list(map(str, names))


def rows_at(X: Any, index: NDArray[np.int64]) -> Any:
    """Return some rows of an array, tensor, frame or lazy frame, in the order of their numbers given.

    Parameters
    ----------
    X : array, tensor, frame or lazy frame, (n, ...)
    index : ndarray of int64, (m,)

    Examples
    --------
    >>> rows_at(np.array([[1], [2], [3]]), np.array([2, 0])).tolist()
    [[3], [1]]
    """
    if is_lazy(X):
        import polars

        place = "row" + "_" * max(map(len, X.collect_schema().names()), default=0)  # no column is called so
        wanted = polars.DataFrame({place: index}, schema={place: polars.UInt32})
        found = X.with_row_index(place).filter(polars.col(place).is_in(index.tolist())).collect()
        return wanted.join(found, on=place, how="left", maintain_order="left").drop(place)
    library = frame_library(X)
    if library == "pandas":
        return X.iloc[index]
    return X.take(index) if library == "pyarrow" else X[index]


def cells(X: Any) -> Array:
    """Return a table's cells as they were given, (n, p): of objects where they come from a frame.

    Parameters
    ----------
    X : array or frame, (n, p)
    """
    if not is_frame(X):
        return np.asarray(X)
    columns = X.column_names if frame_library(X) == "pyarrow" else list(X.columns)
    found = np.empty((number_of_rows(X), len(columns)), dtype=object)
    for j, name in enumerate(columns):
        column = X[name]
        found[:, j] = column.to_pylist() if hasattr(column, "to_pylist") else column.to_list()
    return found


def number_of_rows(X: Any) -> int:
    """Return how many rows there are; of a lazy frame they are counted, not read.

    Raises
    ------
    TypeError
        `X` has no rows.
    """
    return count(X) if is_lazy(X) else int(_num_samples(X))


def to_array(X: Any) -> Any:
    """Return tensors and Datasets as a numpy array with one row an item; anything else as it is.

    A pyarrow RecordBatch becomes a Table.

    Parameters
    ----------
    X : Tensor, Dataset, ndarray, frame or list
        A tensor may live on any device and require gradients. A Dataset is map-style; its items are tensors
        or arrays of one shape, or tuples that begin with one.

    Raises
    ------
    ValueError
        A Dataset without a length, without items, or with an item of another shape (named by its index); a
        masked array, a DataLoader.

    Examples
    --------
    >>> to_array(torch.ones(2, 3)).shape
    (2, 3)
    """
    if isinstance(X, torch.Tensor):
        return as_array(X)
    if type(X).__name__ == "RecordBatch" and type(X).__module__.partition(".")[0] == "pyarrow":
        from pyarrow import Table

        return Table.from_batches([X])
    if isinstance(X, np.ma.MaskedArray):
        raise ValueError("X is a masked array, whose mask would be lost: X.astype(float).filled(numpy.nan)")
    if isinstance(X, torch.utils.data.DataLoader):
        raise ValueError("X is a DataLoader; a Dataset is wanted, which is read in its order: X = X.dataset")
    return stacked(X) if isinstance(X, torch.utils.data.Dataset) else X


def labels(y: Any, n: int) -> NDArray[np.bool_]:
    """Return which of n rows are known anomalies, (n,) bool, True = anomalous.

    Parameters
    ----------
    y : None, array, list, tensor or Series of length n
        None: no row is known to be one. 0 / 1 or booleans: 1 marks a known anomaly. +1 / -1: -1 marks one, as
        in scikit-learn; read so only where a -1 occurs.
    n : int
        Number of rows of X.

    Raises
    ------
    ValueError
        Another length or shape, words, NaN, or no row left that counts as normal.

    Warns
    -----
    UserWarning
        For other numbers, such as class labels: they are ignored, as scikit-learn's tools pass them on.

    Examples
    --------
    >>> labels([0, 1, 0], 3)
    array([False,  True, False])
    >>> labels([1, -1, 1], 3)
    array([False,  True, False])
    """
    if y is None:
        return np.zeros(n, dtype=bool)
    if isinstance(y, np.ma.MaskedArray):
        raise ValueError("y is a masked array, whose mask would be lost: y.filled(0) calls those rows normal")
    given = np.asarray(to_array(y))
    if given.shape != (n,):
        raise ValueError(
            f"y has shape {given.shape}, but X has {n} rows; one label a row is wanted, shape ({n},)"
        )
    codes = "0/1 where 1 marks a known anomaly, or +1/-1 where -1 marks one"
    if given.dtype.kind in "biuf":
        missing = np.isnan(given)
    else:
        missing = np.array([str(value) in ("nan", "None", "<NA>") for value in given.tolist()], dtype=bool)
    if missing.any():
        row = int(missing.argmax())
        raise ValueError(
            f"y holds NaN at row {row}; y is {codes}. Give an unlabelled row the normal code (0 or +1)"
        )
    values = set((given if given.dtype.kind == "O" else np.unique(given)).tolist())
    signed = -1 in values
    if not values <= ({-1, 1} if signed else {0, 1}):
        shown = ", ".join(sorted(map(repr, values))[:6]) + (", ..." if len(values) > 6 else "")
        wanted = f"y holds the values {shown}; wanted is {codes}: y = (y == anomalous_value).astype(int)"
        if not all(isinstance(value, numbers.Number) for value in values):
            raise ValueError(wanted)
        # scikit-learn's contract hands class labels to every estimator and wants a fit all the same.
        warnings.warn(f"{wanted}. y is ignored, all rows count as normal", UserWarning, stacklevel=3)
        return np.zeros(n, dtype=bool)
    anomalous = np.asarray(given == (-1 if signed else 1), dtype=bool)
    if n and anomalous.all():
        code = "+1/-1 where -1" if signed else "0/1 where 1"
        raise ValueError(
            f"y was read as {code} marks a known anomaly, and it marks all {n} rows; normal rows are "
            "needed to fit. Where all rows are normal leave y out: fit(X)"
        )
    return anomalous


@dataclass(frozen=True)
class Pixels:
    """The map from stored pixels to float32, fitted once: training pixels land in 0..1, nothing is clipped.

    Parameters
    ----------
    integer : bool
        Whether the images are of an integer (or boolean) dtype; `transform` takes no other family.
    low, high : float
        The stored values that become 0 and 1.
    """

    integer: bool
    low: float
    high: float

    @classmethod
    def fit(cls, images: Array) -> "Pixels":
        """Return the map for training images of any shape.

        uint8 is divided by 255 and uint16 by 65535, other integers by the smaller that covers them; floats
        within 0..1 stay as they are, unless all are below 1/255; anything else goes linearly from its
        minimum..maximum to 0..1.

        Examples
        --------
        >>> Pixels.fit(np.zeros((1, 1, 2, 2), dtype=np.uint8))
        Pixels(integer=True, low=0.0, high=255.0)
        """
        return cls.covering(images.dtype, float(images.min()), float(images.max()))

    @classmethod
    def covering(cls, dtype: np.dtype[Any], low: float, high: float) -> "Pixels":
        """Return the map for images of a dtype whose pixels run from `low` to `high`."""
        integer = dtype.kind in "bui"
        likely = (TOPS["uint8"], TOPS["uint16"]) if integer else (1.0,)
        for top in (TOPS[dtype.name],) if dtype.name in TOPS else likely:
            if low >= 0.0 and high <= top and (integer or high >= FAINTEST):
                return cls(integer, 0.0, top)
        return cls(integer, low, high if high > low else low + max(1.0, abs(low)))  # constant images become 0

    def transform(self, images: Array) -> NDArray[np.float32]:
        """Return the images as float32 of the same shape, 0..1 for values within the training range.

        Raises
        ------
        ValueError
            Integers given where floats were fitted, or the reverse, or other bits a pixel; the message has
            the conversion.

        Warns
        -----
        UserWarning
            Numbers that seem to be on another scale than those of the fit: 0..1 for 0..255, or the reverse.
        """
        if (images.dtype.kind in "bui") != self.integer:
            top = TOPS.get(images.dtype.name, self.high) if (self.low, self.high) == (0.0, 1.0) else 1.0
            by = f" / {top:.0f}" if top > 1 else ""
            fitted, line = "floats", f"X.astype('float32'){by}  # if the training images were made so"
            if self.integer:
                kind = "uint16" if self.high == TOPS["uint16"] else "uint8"
                fitted, line = (
                    "integers",
                    f"(X * {self.high:.0f}).round().astype('{kind}')  # if X lies in 0..1",
                )
            raise ValueError(
                f"the images are {images.dtype} but the detector was fitted on {fitted} that run from "
                f"{self.low:g} to {self.high:g}; give the same family: X = {line}"
            )
        # Where every value fits, integers of more bits may well be pixels of fewer.
        deep = images.dtype == np.uint16 and self.high == TOPS["uint8"] and images.max(initial=0) > self.high
        if deep or (images.dtype == np.uint8 and self.high == TOPS["uint16"]):
            line = "(X // 257).astype('uint8')" if deep else "X.astype('uint16') * 257"
            raise ValueError(
                f"the images are {images.dtype} but the detector was fitted on integers that run from "
                f"{self.low:g} to {self.high:g}; give as many bits a pixel: X = {line}"
            )
        yes_or_no, binary = self.integer and self.high == TOPS["bool"], images.dtype == bool
        if (binary and not yes_or_no) or (yes_or_no and images.max(initial=0) > TOPS["bool"]):
            line = f"X.astype('uint8') * {self.high:.0f}" if binary else "X > 127  # if X runs to 255"
            raise ValueError(
                f"the images are {images.dtype} but the detector was fitted on integers that run from "
                f"{self.low:g} to {self.high:g}; give them so: X = {line}"
            )
        wide = np.result_type(images, np.float32)  # that of large integers is float64
        scaled = np.subtract(images, self.low, dtype=wide)
        scaled /= self.high - self.low
        if scaled.size and not self.integer:
            low, high = float(scaled.min()), float(scaled.max())
            signed = (self.low, self.high) == (0.0, 1.0) and low < -0.5
            signed |= self.low <= -self.high / 2 < 0 <= images.min()
            if high > FAR or signed or (low < high and max(-low, high) < 1 / FAR):
                warnings.warn(
                    f"the pixels run from {images.min():g} to {images.max():g}, but those of the fit from "
                    f"{self.low:g} to {self.high:g}: on another scale all images score alike; give the same",
                    UserWarning,
                    stacklevel=4,
                )
        return single(scaled)

    def to_state(self) -> dict[str, bool | float]:
        """Return the three fields as a dictionary that fits in JSON; `from_state` reads it."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Pixels":
        """Return the map that `to_state` described."""
        return cls(bool(state["integer"]), float(state["low"]), float(state["high"]))


def single(rows: Array) -> NDArray[np.float32]:
    """Return float rows in single precision; what is too large for it becomes the largest number it has."""
    if rows.dtype == np.float64:
        rows = np.clip(rows, -LARGEST, LARGEST)
    return rows.astype(np.float32, copy=False)


def check_images(X: Any) -> Array:
    """Return images as an array (n, C, H, W) or (n, C, D, H, W), unscaled and with finite pixels.

    Three axes are read as grey images (n, H, W) and become (n, 1, H, W); one-dimensional signals are
    therefore given as (n, C, 1, L).

    Raises
    ------
    ValueError
        Another number of axes, no row, channels last (the message has the transpose), text or objects, NaN.
    """
    try:
        images = np.asarray(to_array(X))
    except ValueError as error:
        raise ValueError(
            "the images differ in shape; one shape (C, H, W) is wanted: resize them first"
        ) from error
    wanted = "(n, C, H, W), grey (n, H, W) or volumes (n, C, D, H, W)"
    if images.dtype.kind not in "buif":
        raise ValueError(f"images are numbers of shape {wanted}, but dtype {images.dtype} was given")
    if images.ndim not in (3, 4, 5):
        hint = "; tables go to R2AD2" if images.ndim == 2 else ""
        raise ValueError(f"X has shape {images.shape}, images of shape {wanted} are wanted{hint}")
    if images.size == 0:
        raise ValueError(
            f"X has shape {images.shape}, so it holds no pixel; at least one image {wanted} is wanted"
        )
    if images.ndim > 3 and images.shape[-1] in (1, 3, 4) and min(images.shape[1:-1]) > 4:
        axes = ", ".join(str(i) for i in (0, images.ndim - 1, *range(1, images.ndim - 1)))
        raise ValueError(
            f"X has shape {images.shape}, with the channels last; they come second here: "
            f"X = X.transpose({axes})"
        )
    check_finite(images)
    return images[:, None] if images.ndim == 3 else images
