"""Levels of a column of categories: those of its own in a fit, and the same ones written otherwise later."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from math import isfinite
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anograd.commas import number

Texts = dict[int, list[str | None]]  # column number -> its categories, None where one is missing
MOST_LEVELS = 100
FEW, MOST_DISTINCT = 40, 0.9  # in more than a few rows, texts that are almost all different are no categories
MOST_OF = 0.9  # of texts; so many that are numbers make a column of numbers
EMPTY = frozenset(
    {
        "na", "n/a", "nan", "null", "none", "nil", "missing", "unknown", "?", "-", "--", "---", ".", "n.a.",
        "k.a.", "<na>", "\\n", "#n/a", "#na", "#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!",
    }
)  # fmt: skip
# Not what any reader takes for a number, but what people and spreadsheets write for one: 1,234.50 or 12 %.
WRITTEN = re.compile(r"[-+(]?\s*[$€£¥]?\s*\d{1,3}(?>[,.'\s]?\d{3})*+(?>[.,]\d+)?\s*[%$€£¥]?\s*[-)]?")
# 2026-11-30, 30.11.2026, 11/30/26, 30-Nov-2026, 10:05
DATED = re.compile(
    r"\d{4}([-./])\d\d?\1\d\d?(?!\d)|\d\d?([-./])\d\d?\2\d{4}(?!\d)|\d\d?([-/])\d\d?\3\d\d(?!\d)"
    r"|\d\d?[- ](?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-, ]+\d{2,4}(?!\d)"
    r"|\d\d?:\d\d(?!\d)",
    re.IGNORECASE,
)
YES, NO = "True", "False"  # the levels of booleans, and what else is written for them
SPELLED = {"true": YES, "1": YES, "1.0": YES, "false": NO, "0": NO, "0.0": NO}


def text_of(level: Any) -> str:
    """Return a level as text: 1.0 as "1", for pandas turns integers into floats where a cell is empty."""
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)


def as_fitted(
    matrix: NDArray[np.float64],
    texts: Texts,
    levels: Mapping[int, Collection[str]],
    label: Callable[[int], str],
) -> None:
    """Make each column what it was in the fit: 1 and `true` are True among booleans, 7 is "7" among digits.

    A column without any value is of either kind.

    Parameters
    ----------
    matrix : ndarray (n, p)
    texts : dict of int to list
        The categories by column number, which are written over.
    levels : mapping of int to collection of str
        The categories of the fit by column number.
    label : callable
        Column number -> what the column is called.

    Raises
    ------
    ValueError
        Numbers for categories that are none, or the reverse; the message has the conversion.
    """
    for j in range(matrix.shape[1]):
        if j not in texts and j in levels:
            column = matrix[:, j].tolist()
            cells = [None if cell != cell else text_of(cell) for cell in column]
            if any(cells) and levels[j] and not _may_be_numbers(levels[j], cells):
                raise ValueError(_of_another_kind(label(j), "categories", "numbers", "str"))
            texts[j] = cells
        elif j in texts and j not in levels:
            if any(text is not None for text in texts[j]):
                raise ValueError(_no_numbers(label(j), [text for text in texts[j] if text is not None]))
            del texts[j]
        if j in levels and levels[j] and set(levels[j]) <= {YES, NO}:
            texts[j] = [text and SPELLED.get(text.lower(), text) for text in texts[j]]
        elif j in levels and _may_be_numbers(levels[j], ()):
            texts[j] = [text if text in levels[j] else _as_digits(text) for text in texts[j]]


def check_texts(label: str, counts: Counter[str]) -> None:
    """Say where a column of texts seems to be one of numbers, but for some cells or for how it is written.

    Parameters
    ----------
    label : str
        What the column is called.
    counts : Counter
        How often each text occurs among all rows: one cell, of whatever row, makes texts of all.

    Raises
    ------
    ValueError
        Cells hold what stands for an empty one, amounts are mixed with what is no number, or most of many
        texts are numbers written as text.

    Warns
    -----
    UserWarning
        Whole numbers are mixed with what is none, or most of few texts are numbers written as text.
    """
    numbers = [level for level in counts if number(level) is not None]
    empty = [level for level in counts if level.lower() in EMPTY]
    if empty and len(numbers) > 1 and {*numbers, *empty} == set(counts):
        raise ValueError(
            f"column {label!r} holds numbers and {empty[0]!r}, which seems to stand for an empty cell: leave "
            f"such cells empty, which missing='impute' fills"
        )
    if odd := _written_number(counts):
        said = f"column {label!r} holds numbers that are written as text, such as {odd!r}"
        remedy = (
            f"write them as 1234.5, or drop the column, X = X.drop(columns=[{label!r}]) or "
            f"--drop {quote(label)}"
        )
        if len(counts) > FEW:
            raise ValueError(f"{said}: {remedy}")
        warnings.warn(
            f"{said}; they are taken for {len(counts)} categories, of which none is more than another. If "
            f"they are amounts, {remedy}",
            UserWarning,
            stacklevel=6,
        )
    _refuse_strange(label, counts, numbers)


def common_levels(label: str, counts: Counter[str]) -> tuple[list[str], list[str]]:
    """Return the levels among the normal rows: those with a column of their own, and those that share one.

    Parameters
    ----------
    label : str
        What the column is called.
    counts : Counter
        How often each level occurs.

    Raises
    ------
    ValueError
        Almost all values differ: it is no category.

    Warns
    -----
    UserWarning
        They are dates or times.
    """
    total = counts.total()
    dated = [level for level in counts if DATED.match(level)]
    if counts and sum(counts[level] for level in dated) >= MOST_OF * total:
        warnings.warn(
            f"column {label!r} holds dates or times as text, such as {min(dated)!r}: each is a level of its "
            f"own, and those to come are unseen ones. Convert it to what matters of it, such as the day of "
            f"the week, or drop it: X = X.drop(columns=[{label!r}]) or --drop {quote(label)}",
            UserWarning,
            stacklevel=7,
        )
    if total > FEW and len(counts) > MOST_DISTINCT * total:
        raise ValueError(
            f"column {label!r} looks like text or an identifier: {len(counts)} different values in {total} "
            f"normal rows. Drop it, X = X.drop(columns=[{label!r}]) or --drop {quote(label)}, or encode it "
            f"as numbers; numbers stored as text: X[{label!r}] = X[{label!r}].astype(float)"
        )
    ranked = sorted(counts, key=lambda level: (-counts[level], level))
    return sorted(ranked[:MOST_LEVELS]), sorted(ranked[MOST_LEVELS:])


def _refuse_strange(label: str, counts: Counter[str], numbers: Sequence[str]) -> None:
    """Say where a few cells of a column are no numbers and all others are, of which it makes categories."""
    total, values = counts.total(), [number(level) for level in numbers]
    strange = [level for level in counts if level not in set(numbers)]
    missed = sum(counts[level] for level in strange)
    if not strange or len(numbers) < 2 or missed > (1 - MOST_OF) * total:
        return
    said = f"column {label!r} holds numbers but for {missed:,} of {total:,} cells, {strange[0]!r} first"
    remedy = "write a number there, or leave the cell empty, which missing='impute' fills"
    if not all(value is None or not isfinite(value) or value.is_integer() for value in values):
        raise ValueError(f"{said}: {remedy}")
    warnings.warn(
        f"{said}; they are taken for {len(counts)} categories, of which none is more than another. If they "
        f"are amounts, {remedy}",
        UserWarning,
        stacklevel=7,
    )


def spellings(levels: Collection[str]) -> dict[str, str]:
    """Return other ways in which frames and files write these levels, and the level that each means.

    Examples
    --------
    >>> spellings(["1", "20"])
    {'1.0': '1', '20.0': '20'}
    """
    found = {}
    if levels and set(levels) <= {YES, NO}:
        written = {
            one: meant for text, meant in SPELLED.items() for one in (text, text.upper(), text.title())
        }
        found = {text: meant for text, meant in written.items() if meant in levels}
    elif _may_be_numbers(levels, ()):
        found = {f"{level}.0": level for level in levels if _as_digits(f"{level}.0") == level}
    return {text: meant for text, meant in found.items() if text not in levels}


def _may_be_numbers(levels: Collection[str], cells: Sequence[str | None]) -> bool:
    """Tell whether numbers, as text, can only mean levels: of yes and no 1 and 0, of digits any."""
    if set(levels) <= {YES, NO}:
        return set(cells) <= {"1", "0", None}
    found = {level: number(level) for level in levels}
    digits = {level: value for level, value in found.items() if value is not None and isfinite(value)}
    return bool(digits) and all(text_of(value) == level for level, value in digits.items())


def _as_digits(text: str | None) -> str | None:
    """Return a whole number as levels of digits are written: 7.0 in a CSV is what pandas made of 7."""
    value = None if text is None else number(text)
    return text if value is None or not isfinite(value) else text_of(value)


def _of_another_kind(label: str, was: str, now: str, to: str) -> str:
    return f"{_held(label, was, now)}; give it as it was: X[{label!r}] = X[{label!r}].astype({to})"


def _held(label: str, was: str, now: str) -> str:
    return f"column {label!r} held {was} in fit, but holds {now} now"


def _no_numbers(label: str, cells: Sequence[str]) -> str:
    """Return what to say of texts where numbers are wanted: which they are, where others are numbers."""
    strange = [cell for cell in cells if number(cell) is None]
    if not 0 < len(strange) < len(cells):
        return _of_another_kind(label, "numbers", "categories", "float")
    held = _held(label, "numbers", "categories")
    return (
        f"{held}: {len(strange):,} of {len(cells):,} cells are no numbers, {strange[0]!r} first; write a "
        "number there, or leave the cell empty, which missing='impute' fills"
    )


def _written_number(counts: Counter[str]) -> str | None:
    """Return a text that stands for a number where most texts do, and that no reader takes for one."""
    written = [text for text in counts if WRITTEN.fullmatch(text)]
    if sum(counts[text] for text in written) < MOST_OF * counts.total():
        return None
    return next((text for text in written if number(text) is None), None)
