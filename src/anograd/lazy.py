"""Lazy frames of polars: tables that are read in pieces, a query for each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

SLICE = 8_192  # rows that are held at once: fewer take longer, more take memory
# Steps of a query as polars prints them, after which rows come in another order each time it is run. What
# order was asked of a join is not printed.
UNORDERED = re.compile(
    r"^\s*(?P<step>UNIQUE|AGGREGATE)\[maintain_order: false"
    r"|^\s*(?P<sort>SORT BY) (?!\[maintain_order: true)"
    r"|^\s*(?P<join>(?:INNER|LEFT|RIGHT|FULL|OUTER) JOIN):"
    r"|\.(?P<drawn>shuffle)\(\)",
    re.MULTILINE,
)


def is_lazy(X: object) -> bool:
    """Return True for a polars LazyFrame; polars is not imported."""
    return any(
        kind.__module__.partition(".")[0] == "polars" and kind.__name__ == "LazyFrame"
        for kind in type(X).__mro__
    )


def collect(X: Any) -> Any:
    """Return the frame that a lazy frame stands for.

    Raises
    ------
    ValueError
        What it is made from could not be read, or has no such column.
    """
    from polars.exceptions import PanicException, PolarsError

    try:
        return X.collect()
    except (PanicException, PolarsError) as error:  # a panic is no Exception
        raise ValueError(
            f"the lazy frame could not be read, its file is damaged or its query is wrong: {error}"
        ) from error


def slices(X: Any) -> Iterator[tuple[int, Any]]:
    """Return the pieces of a lazy frame in order: the number of the first row, and the frame.

    Raises
    ------
    ValueError
        As `check_order` and `collect`.
    """
    check_order(X)
    for start in range(0, max(count(X), 1), SLICE):
        yield start, collect(X.slice(start, SLICE))


def count(X: Any) -> int:
    """Return how many rows a lazy frame has; they are not read."""
    import polars

    return int(collect(X.select(polars.len())).item())


def check_order(X: Any) -> None:
    """Raise ValueError for a lazy frame whose rows come in another order each time it is read.

    Of pieces some rows would then be read twice and others never, and no score would belong to a row.

    Examples
    --------
    >>> import polars
    >>> check_order(polars.LazyFrame({"a": [1, 2]}).unique(maintain_order=True))
    """
    found = UNORDERED.search(X.explain(optimized=False))
    if found is None:
        return
    step = next(filter(None, found.groups()))
    way = "pass maintain_order=True to it" if not (found["join"] or found["drawn"]) else "give it an order"
    raise ValueError(
        f"X is a lazy frame that is read in pieces, and after its {step} rows may come in another order "
        f"each time, so that pieces would hold some rows twice and others never: {way}, or read it once, "
        "X = X.collect(), or into a file, X.sink_parquet('rows.parquet'); "
        "X = polars.scan_parquet('rows.parquet')"
    )
