"""What a graph is given, numbers, categories or pixels, and how it becomes the rows that a network takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anograd.data import Pixels, check_images
from anograd.detectors.rows import Encoder
from anograd.table import Table
from anograd.target import Target, forward_pass, output_of

Feed = dict[str, NDArray[Any]]
STRANGE = "(a level that nobody has seen)"
LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Input:
    """One input of the graph: its name, its type as NumPy's, and the shape of one row."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def kind(self) -> str:
        """Return the type's name, for people."""
        return "string" if self.dtype == object else self.dtype.name


class Inputs(ABC):
    """What a detector's rows look like from outside.

    Attributes
    ----------
    given : list of Input
        Of the file.
    columns : dict of str to list of str
        For a table, the names of the columns of each input, in order.
    """

    given: list[Input]
    columns: dict[str, list[str]]

    @property
    def traced(self) -> list[Input]:
        """Return what `encode` takes: as given, texts as codes."""
        return self.given

    @abstractmethod
    def encode(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        """Return encoded rows, (n, ...), and which of them can be scored, (n,) bool."""

    @abstractmethod
    def feed(self, X: Any) -> Feed:
        """Return the inputs for rows as a detector takes them."""

    @abstractmethod
    def draw(self, rows: int, random: np.random.Generator) -> tuple[Feed, Tensor]:
        """Return inputs for rows that resemble those of the fit, and those rows encoded by the detector."""


class TableInputs(Inputs):
    """Numbers as float64, (n, columns of numbers), and categories as texts, (n, columns of categories).

    Parameters
    ----------
    table : Table
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.levels = table.levels()
        self.numbers = [j for j in range(table.n_in) if j not in self.levels]
        named = table.names_in or [str(j) for j in range(table.n_in)]
        by_name = {"numbers": self.numbers, "categories": list(self.levels)}
        types = {"numbers": np.dtype(np.float64), "categories": np.dtype(object)}
        self.given = [Input(name, types[name], (len(own),)) for name, own in by_name.items() if own]
        self.columns = {name: [named[j] for j in own] for name, own in by_name.items() if own}

    @property
    def traced(self) -> list[Input]:
        return [
            Input("codes", np.dtype(np.int64), one.shape) if one.name == "categories" else one
            for one in self.given
        ]

    def unseen(self, column: int) -> int:
        """Return the encoded column of a category that was not among the normal rows."""
        return len(self.table.origin) - 1 - self.table.origin[::-1].index(column)

    def encode(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        parts, places = [], []
        origin = np.array(self.table.origin)
        usable = torch.ones_like(given[0][:, 0], dtype=torch.bool)
        if self.numbers:
            x = given[0]
            low, half, median = (torch.from_numpy(one) for one in self.table.ranges())
            unknown = torch.isinf(x) if self.table.missing == "impute" else torch.isinf(x) | torch.isnan(x)
            usable = torch.logical_not(unknown.any(1))
            x = torch.where(torch.isnan(x), median, x)
            # Halves, as in the table: the difference of two large numbers can overflow.
            parts.append(((x / 2 - low / 2) / half).clamp(-LARGEST, LARGEST).float())
            places.append(np.flatnonzero(np.isin(origin, self.numbers)))
        if self.levels:
            columns = np.flatnonzero(np.isin(origin, list(self.levels)))
            owner = [list(self.levels).index(j) for j in origin[columns]]
            codes = given[-1].index_select(1, torch.tensor(owner))
            parts.append((codes == torch.from_numpy(columns)).float())
            places.append(columns)
        order = np.argsort(np.concatenate(places))
        rows = torch.cat(parts, dim=1)
        if (order != np.arange(len(order))).any():
            rows = rows.index_select(1, torch.from_numpy(order))
        return rows, usable

    def feed(self, X: Any) -> Feed:
        return self._feed(*self.table.parsed(X))

    def _feed(self, matrix: NDArray[np.float64], texts: dict[int, list[str | None]]) -> Feed:
        found: Feed = {}
        if self.numbers:
            found["numbers"] = np.ascontiguousarray(matrix[:, self.numbers])
        if self.levels:
            # An empty cell is the level that a strange text has; "" may be one of the fit.
            columns = [[STRANGE if text is None else text for text in texts[j]] for j in self.levels]
            found["categories"] = np.array(columns, dtype=object).T.copy()
        return found

    def draw(self, rows: int, random: np.random.Generator) -> tuple[Feed, Tensor]:
        low, half, median = self.table.ranges()
        place = random.uniform(-0.1, 1.1, (rows, len(low)))
        near = random.random((rows, 1))  # some rows lie close to the medians, some anywhere
        matrix = np.zeros((rows, self.table.n_in))
        matrix[:, self.numbers] = median + near * (low + 2 * half * place - median)
        texts: dict[int, list[str | None]] = {
            j: [str(text) for text in random.choice([*levels, STRANGE], rows)]
            for j, levels in self.levels.items()
        }
        return self._feed(matrix, texts), torch.from_numpy(self.table.encode(matrix, texts))


class ImageInputs(Inputs):
    """Pixels as they are stored, (n, C, H, W): uint8 where they are bytes.

    Parameters
    ----------
    pixels : Pixels
    shape : tuple of int
        Of one image.
    """

    def __init__(self, pixels: Pixels, shape: tuple[int, ...]) -> None:
        self.pixels, self.columns = pixels, {}
        kinds = ((255.0, np.uint8), (65535.0, np.int32))
        dtype: Any = np.float32
        if pixels.integer:
            fits = (kind for top, kind in kinds if pixels.low >= 0 and pixels.high <= top)
            dtype = next(fits, np.int64)
        self.given = [Input("images", np.dtype(dtype), shape)]

    def encode(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        x = given[0].double() if self.given[0].dtype == np.int64 else given[0].float()
        unusable = torch.isinf(x) | torch.isnan(x)
        rows = (x - self.pixels.low) / (self.pixels.high - self.pixels.low)
        return rows.float(), torch.logical_not(unusable.reshape(len(unusable), -1).any(1))

    def feed(self, X: Any) -> Feed:
        return {"images": check_images(X).astype(self.given[0].dtype)}

    def draw(self, rows: int, random: np.random.Generator) -> tuple[Feed, Tensor]:
        low, high = self.pixels.low, self.pixels.high
        # Dark and bright images, flat and busy ones.
        level, spread = (random.random((rows, *(1 for _ in self.given[0].shape))) for _ in range(2))
        values = (level + spread * random.uniform(-0.5, 0.5, (rows, *self.given[0].shape))).clip(0, 1)
        images = (low + (high - low) * values).astype(self.given[0].dtype)
        return {"images": images}, torch.from_numpy(self.pixels.transform(images))


class RawInputs(Inputs):
    """Rows as a network that was handed in takes them.

    Parameters
    ----------
    dtype : numpy.dtype
        Of the rows: float32, float64 where network and rows are in double precision, or int64.
    shape : tuple of int
        Of one row.
    words : int, optional
        How many a table of embeddings has that whole rows are looked up in: others cannot be scored.
    """

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...], words: int | None = None) -> None:
        self.columns, self.words = {}, words
        self.given = [Input("rows", dtype, shape)]

    def encode(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        x = given[0]
        if x.is_floating_point():
            unusable = torch.isinf(x) | torch.isnan(x)
        elif self.words is None:
            unusable = torch.zeros_like(x) > 0
        else:  # onnxruntime counts numbers below 0 from the end, and fails at those beyond it
            unusable = (x < 0) | (x >= self.words)
            x = torch.where(unusable, 0, x)
        return x, torch.logical_not(unusable.reshape(len(unusable), -1).any(1))

    def feed(self, X: Any) -> Feed:
        return {"rows": np.asarray(X).astype(self.given[0].dtype)}

    def draw(self, rows: int, random: np.random.Generator) -> tuple[Feed, Tensor]:
        raise ValueError(
            "the network was handed in, and nothing is known of its rows: give some to check the graph by, "
            "ag.export(detector, path, check=X)"
        )


def inputs_of(encoder: Encoder, like: Tensor | None, target: Target | None = None) -> Inputs:
    """Return the inputs that an encoder's rows come from.

    Parameters
    ----------
    encoder : Encoder
    like : torch.Tensor or None
        Encoded rows, which tell the type where the network was handed in.
    target : Target, optional
        That network.
    """
    if encoder.table is not None:
        return TableInputs(encoder.table)
    if encoder.pixels is not None:
        return ImageInputs(encoder.pixels, encoder.shape)
    dtype = np.dtype(np.float32) if like is None else like.numpy().dtype
    words = _words(target, like[:1]) if target is not None and like is not None else None
    return RawInputs(dtype, encoder.shape, words)


def _words(target: Target, rows: Tensor) -> int | None:
    """Return the size of the smallest table of embeddings that whole rows are looked up in, None of none."""
    sizes: list[int] = []

    def look(layer: nn.Embedding, given: tuple[Tensor, ...]) -> None:
        if given[0].shape == rows.shape and torch.equal(given[0], rows):
            sizes.append(layer.num_embeddings)

    with ExitStack() as undo:
        for layer in target.module.modules():
            if isinstance(layer, nn.Embedding) and not rows.is_floating_point():
                undo.callback(layer.register_forward_pre_hook(look).remove)
        with forward_pass(target):
            output_of(target, rows)
    return min(sizes, default=None)
