"""Explanations for people and for machines: lines of text, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anograd.explain import Explanation
from anograd.levels import NO, SPELLED, YES

PARTS_SHOWN = 4


def told(
    found: Explanation, rows: Sequence[Any], p: NDArray[np.float64], given: NDArray[Any] | None, count: int
) -> list[tuple[str, list[str]]]:
    """Return a heading and lines for each row: which columns stand out, which parts of the network say so.

    Parameters
    ----------
    found : Explanation
    rows : sequence
        What each row is called.
    p : ndarray, (n,)
        P values.
    given : ndarray, (n, p), optional
        What each column holds, where rows are those of a table.
    count : int
        Columns at most.
    """
    blocks = []
    for i, row in enumerate(rows):
        lines = []
        for name, expected, share in found.top(i, count) if found.names else []:
            value = _spelt(given[i, found.names.index(name)], expected) if given is not None else "?"
            lines.append(f"{name} is {_value(value)}, expected {_value(expected)} ({share:+.3g})")
        order = np.argsort(-found.parts[i])[:PARTS_SHOWN]
        shares = [f"{found.part_names[j]} {found.parts[i, j]:+.3g}" for j in order if found.parts[i, j] > 0]
        if shares:
            lines.append("by " + ", ".join(shares))
        if found.nearest is not None:
            lines.append(f"nearest normal rows: {', '.join(map(str, found.nearest[i]))}")
        blocks.append((f"{row}: score {found.scores[i]:.4g}, p {p[i]:.3g}", lines))
    return blocks


def as_data(
    found: Explanation, rows: Sequence[Any], p: NDArray[np.float64], given: NDArray[Any] | None
) -> list[dict[str, Any]]:
    """Return the same as plain data, every contribution in it, one dict a row.

    Parameters
    ----------
    found : Explanation
    rows : sequence
    p : ndarray, (n,)
    given : ndarray, (n, p), optional
    """
    blocks = []
    for i, row in enumerate(rows):
        block: dict[str, Any] = {"row": row, "score": float(found.scores[i]), "p_value": float(p[i])}
        if found.names:
            shares, expected = found.features[i], found.expected[i]
            block["features"] = [
                {
                    "name": name,
                    **({"given": _plain(_spelt(given[i, j], expected[j]))} if given is not None else {}),
                    "expected": _plain(expected[j]),
                    "contribution": float(shares[j]),
                }
                for j, name in enumerate(found.names)
            ]
        else:
            block["pixels"] = found.features[i].tolist()
        named = zip(found.part_names, found.parts[i].tolist(), strict=True)
        block["parts"] = [{"name": name, "contribution": share} for name, share in named]
        if found.nearest is not None:
            block["nearest"] = found.nearest[i].tolist()
        blocks.append(block)
    return blocks


def _spelt(given: Any, expected: Any) -> Any:
    """Return a boolean as it is spelt where another is expected: a CSV has true for True."""
    return SPELLED.get(given.lower(), given) if expected in (YES, NO) and isinstance(given, str) else given


def _value(value: Any) -> str:
    number = _plain(value)
    return f"{number:,.4g}" if isinstance(number, float) else repr(number)


def _plain(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | float | np.number | Decimal):
        return float(value)
    return None if value is None else str(value)
