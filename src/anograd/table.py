"""A table of numbers, categories and booleans becomes float32 numbers; its columns are remembered by name."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import OneHotEncoder

from anograd.columns import check_names, parse, parts, ranges, warn_of_row_numbers
from anograd.finite import Flaw, refuse
from anograd.lazy import slices
from anograd.levels import Texts, as_fitted, check_texts, common_levels
from anograd.nodes import foreign_types

OTHER, UNSEEN = "(other)", "(unseen or missing)"


class Table:
    """Encoder of mixed tables: `transform` returns float32 numbers, 0..1 for values in the range of the fit.

    Numbers are scaled from minimum..maximum of the normal rows to 0..1, and nothing is clipped: a value
    outside the range stays outside. A constant column becomes its difference from the constant. Categories
    and booleans become one column a level; the 100 most frequent levels have their own, the rest share
    "other", and one more is for what is missing or was not seen among the normal rows.

    Parameters
    ----------
    missing : {"refuse", "impute"}
        What to do with NaN and empty cells: an error that names the cell, or the median of the normal rows
        for numbers and the level "unseen or missing" for categories. Infinity is always refused.

    Attributes
    ----------
    n_in : int
        Number of columns of X.
    names_in : list of str or None
        Their names; None for an array.
    names_out : list of str
        Name of each encoded column.
    origin : list of int
        For each encoded column the number of the column of X that it came from.
    constant : list of int
        Columns of X whose number was the same in all normal rows.
    gaps : list of int
        Columns of categories of which some normal row had none.

    Examples
    --------
    >>> Table().fit([[0.0, 5.0], [10.0, 5.0]]).transform([[5.0, 6.0]])
    array([[0.5, 1. ]], dtype=float32)
    """

    n_in: int
    names_in: list[str] | None
    names_out: list[str]
    origin: list[int]
    constant: list[int]
    gaps: list[int]

    def __init__(self, missing: Literal["refuse", "impute"] = "refuse") -> None:
        if missing not in ("refuse", "impute"):
            raise ValueError(f"missing={missing!r} was given; 'refuse' or 'impute' is wanted")
        self.missing = missing

    def fit(self, X: Any, normal: NDArray[np.bool_] | None = None) -> "Table":
        """Learn ranges, medians and levels from the normal rows, and return self.

        Parameters
        ----------
        X : array (n, p) of numbers, or a pandas, polars or pyarrow frame
            Columns may be mixed in a frame. A polars LazyFrame is read column by column.
        normal : ndarray (n,) of bool, optional
            The rows to learn from; all of them by default.

        Raises
        ------
        ValueError
            NaN or infinity, no row, a date or text-like column, doubled column names; the message names the
            column and the line to change.
        """
        if normal is not None and not normal.any():
            raise ValueError(f"no row of {len(normal)} is marked normal; at least one is wanted to fit on")
        flaws: list[Flaw] = []
        found = [np.empty((3, 0))]
        every: dict[int, Counter[Any]] = {}
        counts: dict[int, Counter[Any]] = {}
        self._numbers = []
        for part in parts(X):
            self.names_in, self.n_in = part.names, part.columns.stop
            end = part.start + len(part.matrix)
            keep = np.ones(len(part.matrix), dtype=bool) if normal is None else normal[part.start : end]
            for j, texts in part.texts.items():
                kept = (text for text, of_use in zip(texts, keep.tolist(), strict=True) if of_use)
                counts.setdefault(j, Counter()).update(kept)
                every.setdefault(j, Counter()).update(texts)
            flaws += self._flaws(part.matrix, part.start, part.columns.start)
            numbers = [j for j in part.columns if j not in part.texts]
            self._numbers += numbers
            if numbers and not flaws:
                chosen = np.array(numbers) - part.columns.start
                warn_of_row_numbers(part)
                found.append(ranges(part.matrix[np.ix_(keep, chosen)]))
        refuse(flaws, self.names_in)
        self._low, high, self._median = np.concatenate(found, axis=1)
        # Halves, because the difference of two large numbers can overflow.
        half = high / 2 - self._low / 2
        self._half = np.where(half > 0, half, 0.5)
        self.constant = [j for j, one in zip(self._numbers, half, strict=True) if not one > 0]
        self.gaps = [j for j in counts if counts[j].pop(None, 0)]
        for j, cells in every.items():
            cells.pop(None, 0)
            check_texts(self.label(j), cells)
        self._fit_categories({j: common_levels(self.label(j), counts[j]) for j in counts})
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the encoded rows, (n, number of `names_out`), in the order of `names_out`.

        Parameters
        ----------
        X : array (n, p) or frame
            The columns of the fit, in that order; names are compared where both sides have them.

        Raises
        ------
        ValueError
            Columns missing, unexpected, in another order or of another kind; NaN, infinity, or no row.
        """
        if not hasattr(self, "names_out"):
            raise NotFittedError("this Table has not been fitted; call fit(X) first")
        return self._encode(X)

    def sound(self, X: Any) -> tuple[NDArray[np.float32], NDArray[np.int64], dict[int, str]]:
        """Return the rows that can be encoded, (m, `names_out`), their places, and why each other one cannot.

        Parameters
        ----------
        X : as for `transform`
            Its columns must be those of the fit.
        """
        matrix, texts = self.parsed(X)
        bad = np.isinf(matrix) if self.missing == "impute" else ~np.isfinite(matrix)
        flawed = bad.any(axis=1)
        why = {}
        for row in np.flatnonzero(flawed).tolist():
            column = int(bad[row].argmax())
            kind = "infinity" if np.isinf(matrix[row, column]) else "an empty cell or NaN"
            why[row] = f"{kind} in column {self.label(column)!r}"
        kept = np.flatnonzero(~flawed)
        texts = {j: [cells[i] for i in kept] for j, cells in texts.items()} if why else texts
        return self.encode(matrix[kept] if why else matrix, texts), kept, why

    def stream(self, X: Any) -> Iterator[NDArray[np.float32]]:
        """Return the encoded rows of a polars LazyFrame piece by piece, each as from `transform`.

        Parameters
        ----------
        X : polars.LazyFrame
            The columns of the fit, in that order.

        Raises
        ------
        ValueError
            As in `transform`; rows are counted from the start of the whole.
        """
        for start, frame in slices(X):
            yield self._encode(frame, start)

    def _encode(self, X: Any, start: int | None = None) -> NDArray[np.float32]:
        """Return encoded rows; `start` is the number of the first one where they are a piece of more."""
        matrix, texts = self.parsed(X)
        among = "in all" if start is None else f"in rows {start} to {start + len(matrix) - 1}"
        refuse(self._flaws(matrix, start or 0), self.names_in, among)
        return self.encode(matrix, texts)

    def parsed(self, X: Any) -> tuple[NDArray[np.float64], Texts]:
        """Return numbers and categories of the columns of the fit as it had them, whatever their cells hold.

        Parameters
        ----------
        X : as for `transform`

        Raises
        ------
        ValueError
            Columns missing, unexpected, in another order or of another kind.
        """
        names, matrix, texts = parse(X)
        self.check_columns(names, matrix.shape[1])
        as_fitted(matrix, texts, self._keys, self.label)
        return matrix, texts

    def encode(self, matrix: NDArray[np.float64], texts: Texts) -> NDArray[np.float32]:
        """Return the encoded rows, (n, number of `names_out`), of columns that are parsed and checked.

        Parameters
        ----------
        matrix : ndarray (n, p)
            The numbers, NaN for a missing one.
        texts : dict of int to list
            The categories by column number, None for a missing one.
        """
        origin = np.array(self.origin)
        encoded = np.empty((len(matrix), len(origin)), dtype=np.float32)
        if self._numbers:
            encoded[:, np.isin(origin, self._numbers)] = self._scale(matrix[:, self._numbers])
        if self._encoder is not None and len(matrix):
            keys = np.empty((len(matrix), len(self._keys)), dtype=object)
            for i, (j, keyed) in enumerate(self._keys.items()):
                keys[:, i] = [UNSEEN if text is None else keyed.get(text, UNSEEN) for text in texts[j]]
            encoded[:, ~np.isin(origin, self._numbers)] = self._encoder.transform(keys)
        return encoded

    def ranges(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return minimum, half the range, and median of each column of numbers among the normal rows."""
        return self._low, self._half, self._median

    def levels(self) -> dict[int, dict[str, int]]:
        """Return, for each column of categories, which encoded column a level that was seen leads to."""
        found = {}
        for j, keyed in self._keys.items():
            own = sorted(level for level, key in keyed.items() if key != OTHER)
            places = {level: self.origin.index(j) + i for i, level in enumerate(own)}
            found[j] = {level: places.get(level, self.origin.index(j) + len(own)) for level in keyed}
        return found

    def kinds(self) -> list[str]:
        """Return for each column of X what it holds: "number" or "category"."""
        return ["number" if j in self._numbers else "category" for j in range(self.n_in)]

    def label(self, column: int) -> str:
        """Return what a column of X is called: its name, or its number in an array."""
        return self.names_in[column] if self.names_in is not None else str(column)

    def state(self) -> dict[str, Any]:
        """Return what is known of the columns, fit for JSON: names, kinds, treatment of missing cells."""
        return {
            "missing": self.missing,
            "n_in": self.n_in,
            "names_in": self.names_in,
            "kinds": self.kinds(),
            "names_out": self.names_out,
            "origin": self.origin,
            "constant": self.constant,
            "gaps": self.gaps,
        }

    def to_skops(self) -> bytes:
        """Return the fitted table as a skops file, which holds no pickle."""
        import skops.io

        keys = {str(j): keyed for j, keyed in self._keys.items()}
        parts = {"low": self._low, "half": self._half, "median": self._median, "keys": keys}
        content: bytes = skops.io.dumps({"state": self.state(), **parts, "encoder": self._encoder})
        return content

    @classmethod
    def from_skops(cls, content: bytes) -> "Table":
        """Return the table that `to_skops` made a file of.

        Parameters
        ----------
        content : bytes

        Raises
        ------
        ValueError
            The file is damaged, or holds a type other than arrays, plain values and a OneHotEncoder.
        """
        import skops.io

        try:
            foreign = foreign_types(content)
            parts = skops.io.loads(content, trusted=[]) if not foreign else {}
        except Exception as error:  # skops lets through whatever its zip, JSON and numpy readers raise
            raise ValueError(f"it is no table of anograd, or is damaged: {error}") from error
        if foreign:
            raise ValueError(
                f"it holds types that a table has no use for: {', '.join(foreign)}; it was not "
                "loaded. Fit and save the detector again if you do not know where the file comes from"
            )
        try:
            return cls._of_parts(**parts)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"it is no table of anograd: {error}") from error

    @classmethod
    def _of_parts(
        cls,
        state: dict[str, Any],
        low: NDArray[np.float64],
        half: NDArray[np.float64],
        median: NDArray[np.float64],
        keys: dict[str, dict[str, str]],
        encoder: OneHotEncoder | None,
    ) -> "Table":
        table = cls(state["missing"])
        table.n_in, table.names_in = int(state["n_in"]), state["names_in"]
        table.names_out, table.origin = list(state["names_out"]), list(state["origin"])
        table._numbers = [j for j, kind in enumerate(state["kinds"]) if kind == "number"]
        table.constant, table.gaps = list(state.get("constant", ())), list(state.get("gaps", ()))
        table._low, table._half, table._median = low, half, median
        table._keys = {int(j): dict(keyed) for j, keyed in keys.items()}
        table._encoder = encoder
        table._check_whole()
        return table

    def _check_whole(self) -> None:
        """Raise ValueError where what a file held does not fit together."""
        numbers = len(self._numbers)
        categories = [] if self._encoder is None else list(map(len, self._encoder.categories_))
        widths = [1] * self.n_in
        for j, width in zip(self._keys, categories, strict=True):
            widths[j] = width
        fits = (
            numbers + len(self._keys) == self.n_in
            and all(part.shape == (numbers,) for part in (self._low, self._half, self._median))
            and self.origin == [j for j, width in enumerate(widths) for _ in range(width)]
            and len(self.names_out) == len(self.origin)
            and (self.names_in is None or len(self.names_in) == self.n_in)
            and {*self.constant} <= {*self._numbers}
            and {*self.gaps} <= {*self._keys}
        )
        if not fits:
            raise ValueError("its columns, ranges and levels do not fit together")

    def _scale(self, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
        largest = np.finfo(np.float32).max
        scaled = numbers / 2  # halves, as in the fit
        missing = np.isnan(scaled)
        if missing.any():
            scaled = np.where(missing, self._median / 2, scaled)
        with np.errstate(over="ignore"):
            scaled -= self._low / 2
            scaled /= self._half
        # What float32 cannot hold becomes its largest number.
        narrow: NDArray[np.float32] = np.clip(scaled, -largest, largest, out=scaled).astype(np.float32)
        return narrow

    def _fit_categories(self, levels: dict[int, tuple[list[str], list[str]]]) -> None:
        self.names_out, self.origin, self._keys, categories = [], [], {}, []
        for j in range(self.n_in):
            label = self.label(j)
            if j not in levels:
                self.names_out.append(label)
                self.origin.append(j)
                continue
            own, rest = levels[j]
            special = [OTHER, UNSEEN] if rest else [UNSEEN]
            self._keys[j] = {level: "=" + level for level in own} | dict.fromkeys(rest, OTHER)
            categories.append(["=" + level for level in own] + special)
            self.names_out += [f"{label}={level}" for level in own] + [label + " " + name for name in special]
            self.origin += [j] * len(categories[-1])
        self._encoder = None
        if categories:
            examples = np.array([[level[0] for level in categories]], dtype=object)
            self._encoder = OneHotEncoder(categories=categories, sparse_output=False, dtype=np.float32)
            self._encoder.fit(examples)  # the levels are given, so one row is enough

    def _flaws(self, matrix: NDArray[np.float64], row: int, column: int = 0) -> list[Flaw]:
        """Return the flaw of a part of the table, if any, numbered from the start of the whole."""
        impute = self.missing == "impute"
        flaw = Flaw.find(np.where(np.isnan(matrix), 0.0, matrix) if impute else matrix)
        if flaw is None:
            return []
        return [replace(flaw, row=flaw.row + row, place=(flaw.place[0] + column,))]

    def check_columns(self, names: list[str] | None, count: int) -> None:
        """Raise ValueError where these names (None for an array) and their count are not those of the fit."""
        if names is not None:
            check_names(names, self.names_in)
        if count != self.n_in:
            raise ValueError(
                f"X has {count} features, but Table is expecting {self.n_in} features as input; give the "
                "columns that the detector was fitted on"
            )
