"""The items of a map-style Dataset as arrays: all at once, or in blocks where memory would not hold them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

Array = NDArray[Any]
FLOAT = 4  # bytes of a float32, which every number becomes
BLOCK = 2**24  # bytes, or one item


def stacked(dataset: Any) -> Array:
    """Return all items as one array, (n, ...); nothing is held twice.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Map-style; its items are tensors or arrays of one shape, or tuples that begin with one.

    Raises
    ------
    ValueError
        A Dataset without a length, without items, or with an item of another shape (named by its index).
    """
    return next(array for _, array in _blocks(dataset, math.inf))


def blocks(dataset: Any) -> Iterator[tuple[int, Array]]:
    """Return the items in order, some at a time: the number of the first, and an array (b, ...) of them.

    Each item is asked for once. Parameters and errors are those of `stacked`.
    """
    return _blocks(dataset, BLOCK)


def beyond(X: Any, memory: int, *, whole_numbers: bool = True) -> bool:
    """Tell whether `X` is a Dataset whose items take more memory than that, once they are float32.

    Items of one axis are rows of a table, which is looked at as a whole.

    Parameters
    ----------
    X : object
    memory : int
        Bytes.
    whole_numbers : bool, default True
        Whether integers become float32, too.
    """
    dataset: Any = X
    if not isinstance(X, Dataset) or not _is_map_style(dataset) or not len(dataset):
        return False
    one = _item(dataset, 0)
    counts = one.dtype.kind == "f" or whole_numbers
    return counts and one.ndim > 1 and FLOAT * len(dataset) * one.size > memory


def _is_map_style(dataset: object) -> bool:
    return hasattr(dataset, "__len__") and not isinstance(dataset, IterableDataset)


def as_array(tensor: Tensor) -> Array:
    """Return a tensor as an array, from any device."""
    held = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (held.float() if held.dtype == torch.bfloat16 else held).numpy()  # numpy has no bfloat16


def _blocks(dataset: Any, most: float) -> Iterator[tuple[int, Array]]:
    name = type(dataset).__name__
    if not _is_map_style(dataset):
        raise ValueError(
            f"{name} has no length, or no items by number; a map-style Dataset is wanted: "
            "X = torch.stack(list(dataset))"
        )
    if len(dataset) == 0:
        raise ValueError(f"{name} is empty; at least one item is wanted")
    n, first = len(dataset), _item(dataset, 0)
    size = n if most == math.inf else max(1, int(most) // max(1, first.nbytes))
    for start in range(0, n, size):
        rows = np.empty((min(size, n - start), *first.shape), dtype=first.dtype)
        for place in range(len(rows)):
            index = start + place
            row = _item(dataset, index) if index else first
            if (row.shape, row.dtype) != (first.shape, first.dtype):
                raise ValueError(
                    f"item {index} of {name} has shape {row.shape} and dtype {row.dtype}, but item 0 has "
                    f"{first.shape} and {first.dtype}; one of each is wanted: resize or convert in "
                    "__getitem__"
                )
            rows[place] = row
        yield start, rows


def _item(dataset: Any, index: int) -> Array:
    item = dataset[index]
    row = item[0] if isinstance(item, tuple | list) else item
    if isinstance(row, Tensor):
        row = as_array(row)
    if not isinstance(row, np.ndarray):
        raise ValueError(
            f"item {index} of {type(dataset).__name__} is of type {type(row).__name__}; a tensor or an array "
            "is wanted: convert it in __getitem__ (for pictures transform=torchvision.transforms.ToTensor())"
        )
    return row
