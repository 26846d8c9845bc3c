"""The rows of a JSON body become what the detector takes."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Never

import numpy as np

from anograd.data import number_of_rows
from anograd.decide import counted
from anograd.detectors import Detector
from anograd.detectors.rows import RAW
from anograd.serve.limits import Limits
from anograd.serve.problems import Problem

RULES = ("alpha", "fdr", "budget", "costs")
MORE_COLUMNS = 1_000  # than the model has; a table with yet more is not read
CELLS = {int: "numbers", float: "numbers", str: "texts", bool: "true and false"}


@dataclass(frozen=True)
class Rows:
    """Rows to score.

    Parameters
    ----------
    X : array or frame
    names : sequence
        What each row is called: its number, or its file.
    said : list of str
        What the sender should know, such as columns that were left out.
    """

    X: Any
    names: Sequence[Any]
    said: list[str] = field(default_factory=list)

    @classmethod
    def numbered(cls, X: Any, said: Sequence[str] = ()) -> Rows:
        """Return rows that are called by their numbers."""
        return cls(X, range(number_of_rows(X)), list(said))


def parse(body: bytes) -> Any:
    """Return what a JSON body holds.

    Raises
    ------
    Problem
        400: it is no JSON, holds NaN or infinity, has a name twice, or is nested too deeply.
    """

    def refuse(name: str) -> Never:
        raise ValueError(f"{name} is no JSON; finite numbers are wanted, and null for an empty cell")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise Problem(400, f"{twice!r} stands twice in one object; it is wanted once")
        return found

    collecting = gc.isenabled()
    gc.disable()  # millions of small lists would be gone through again and again, while all else waits
    try:
        return json.loads(body, parse_constant=refuse, object_pairs_hook=once)
    except RecursionError:
        raise Problem(400, "the body is nested too deeply; wanted is " + _body()) from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError among them
        if "integer string conversion" in str(error):  # of a whole number longer than Python reads
            raise Problem(400, "the body holds a whole number above 1e308; that is too large") from None
        raise Problem(400, f"the body is not JSON: {error}; wanted is {_body()}") from None
    finally:
        if collecting:
            gc.enable()


def read_body(body: bytes, detector: Detector, limits: Limits) -> tuple[Rows, dict[str, Any]]:
    """Return the rows of a JSON body, and the rule by which alarms are asked for.

    Parameters
    ----------
    body : bytes
    detector : Detector
    limits : Limits

    Raises
    ------
    Problem
        400 wrong values, 413 too many rows, 422 another shape than is wanted.
    """
    found = parse(body)
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise Problem(422, f"wanted is an object with a list of rows: {_body()}")
    unknown = [name for name in found if name not in ("rows", *RULES)]
    if unknown:
        raise Problem(422, f"{unknown[0]!r} is not known; wanted is {_body()}")
    rule = {name: found[name] for name in RULES if found.get(name) is not None}
    for name, value in rule.items():
        numbers = value if name == "costs" and isinstance(value, list) else [value]
        if any(type(one) not in (int, float) for one in numbers):
            example = "two numbers, such as [1, 50]" if name == "costs" else f"a number, such as {_body()}"
            raise Problem(422, f"{name} is {example}")
    rows = found["rows"]
    if not rows:
        raise Problem(400, "rows is empty; at least one row is wanted")
    check_count(len(rows), limits)
    if detector.encoder_.table is not None:
        return _table(rows, detector), rule
    return Rows.numbered(_arrays(rows, detector)), rule


def check_count(n: int, limits: Limits) -> None:
    """Raise the problem 413 where there are more rows than one request may hold."""
    if n > limits.rows:
        raise Problem(413, f"{n:,} rows were given; at most {limits.rows:,} at once: send them in pieces")


def column_names(detector: Detector) -> list[str]:
    """Return the names of a table's columns; their numbers, where it was fitted on an array."""
    assert detector.encoder_.table is not None
    return detector.encoder_.table.names_in or [str(j) for j in range(detector.n_features_in_)]


def _body() -> str:
    return '{"rows": [[1.5, 2.0]], "alpha": 0.05}'


def _table(rows: list[Any], detector: Detector) -> Rows:
    import polars

    table = detector.encoder_.table
    assert table is not None
    names = column_names(detector)
    said = []
    if isinstance(rows[0], dict):
        there = _keys(rows, len(names))
        if table.names_in is None:
            raise Problem(422, f"the model's columns have no names: give rows as lists of {len(names)} cells")
        if not there >= set(names):
            table.check_columns([*rows[0]], len(there))  # says what is wanted
        extra = [name for name in rows[0] if name not in set(names)]
        if extra:
            shown = ", ".join(map(repr, extra[:20]))
            said.append(f"columns that the model was not fitted on are left out: {shown}")
        columns = {name: [row[name] for row in rows] for name in names}
    else:
        for i, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != len(names):
                given = counted(len(row), "cell") if isinstance(row, list) else "no list"
                shown = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
                raise Problem(
                    422, f"row {i}, counted from 0, is {given}; wanted is a list of {len(names)}: {shown}"
                )
        columns = {name: [row[j] for row in rows] for j, name in enumerate(names)}
    frame = polars.DataFrame([_column(*item) for item in columns.items()])
    return Rows.numbered(frame, said)


def _keys(rows: list[Any], count: int) -> set[str]:
    """Return the names that all rows have."""
    there = set(rows[0])
    if len(there) > count + MORE_COLUMNS:
        raise Problem(422, f"a row has {len(there):,} columns; the model takes {count}")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise Problem(422, f"row {i}, counted from 0, is no object as row 0 is; give all rows alike")
        if row.keys() != there:
            name = sorted(there.symmetric_difference(row))[0]
            raise Problem(
                422,
                f"row {i}, counted from 0, and row 0 differ in the column {name!r}; give all rows the same "
                "columns, and null for an empty cell",
            )
    return there


def _column(name: str, cells: list[Any]) -> Any:
    """Return the cells of a column as a polars series: numbers, texts, or true and false."""
    import polars

    kinds = set(map(type, cells)) - {type(None)}
    if not kinds <= set(CELLS):
        raise Problem(422, f"column {name!r} holds lists or objects; a cell is a number, a text or null")
    held = sorted({CELLS[kind] for kind in kinds})
    if len(held) > 1:
        raise Problem(
            400,
            f"column {name!r} holds {' and '.join(held)}; one kind is wanted: numbers as 1.5, not '1.5', and "
            "levels all as texts",
        )
    if held == ["numbers"]:
        try:
            return polars.Series(name, [None if cell is None else float(cell) for cell in cells])
        except OverflowError:
            raise Problem(
                400, f"column {name!r} holds a whole number above 1e308; that is too large"
            ) from None
    try:
        return polars.Series(name, cells)
    except UnicodeEncodeError as error:  # half of a letter, which JSON can write and UTF-8 cannot
        row = cells.index(error.object)
        raise Problem(400, f"column {name!r} holds {error.object!r} at row {row}; that is no text") from None


def _arrays(rows: list[Any], detector: Detector) -> Any:
    """Return nested lists of numbers as an array (n, *shape)."""
    encoder = detector.encoder_
    shape = encoder.shape
    if len(shape) == 3 and shape[0] == 1 and _depth(rows[0]) == 2:
        shape = shape[1:]  # a grey image without its channel
    found: list[float] = []
    for i, row in enumerate(rows):
        if not _flatten(row, shape, found):
            size = " x ".join(map(str, shape))
            raise Problem(422, f"row {i}, counted from 0, is not numbers in nested lists of {size}")
    whole = encoder.pixels.integer if encoder.pixels is not None else encoder.kind == RAW
    fractions = any(type(value) is float and not value.is_integer() for value in found)
    if encoder.kind == RAW:  # 1.0 goes to the network as a float, 1 as an integer
        fractions = any(type(value) is float for value in found)
    try:
        return np.array(found, np.int64 if whole and not fractions else np.float64).reshape(-1, *shape)
    except OverflowError:
        raise Problem(400, "a whole number in the rows is too large") from None


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list) and value and depth < 9:
        value, depth = value[0], depth + 1
    return depth


def _flatten(value: Any, shape: tuple[int, ...], found: list[float]) -> bool:
    """Add the numbers in nested lists of a shape to those found; False where they are of another."""
    if not isinstance(value, list) or len(value) != shape[0]:
        return False
    if len(shape) > 1:
        return all(_flatten(part, shape[1:], found) for part in value)
    found.extend(value)
    return set(map(type, value)) <= {int, float}
