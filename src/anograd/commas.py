"""CSV: what its first line must be, and which of its cells are numbers however they are written."""

import csv
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

BOM = b"\xef\xbb\xbf"
ENCODED = {
    b"\x1f\x8b": ("compressed", "gunzip < FILE > plain.csv"),
    b"BZh91AY&SY": ("compressed", "bunzip2 < FILE > plain.csv"),
    b"\xfd7zXZ": ("compressed", "unxz < FILE > plain.csv"),
    b"\x28\xb5\x2f\xfd": ("compressed", "unzstd < FILE > plain.csv"),
    b"\xff\xfe": ("in UTF-16", "iconv -f utf-16 -t utf-8 FILE > utf8.csv"),
    b"\xfe\xff": ("in UTF-16", "iconv -f utf-16 -t utf-8 FILE > utf8.csv"),
}
OTHER = {b"\x93NUM": "NumPy", b"PAR1": "Parquet", b"PK\x03\x04": "NumPy, Excel or zip"}
HEADER = 2**20  # bytes of a CSV's first line that are looked at
SHOWN = 120  # letters of a row
TAIL = 2**16  # bytes of a file's end that are looked at


def check_csv(head: bytes, name: str) -> None:
    """Raise ValueError where a pipe or file does not begin with names that commas separate.

    Parameters
    ----------
    head : bytes
        The first line, or more.
    name : str
        What messages call it.

    Warns
    -----
    UserWarning
        The names are numbers, as in a file without any, or hold what may stand between columns.
    """
    if (kind := OTHER.get(head[:4])) is not None:
        raise ValueError(
            f"{name} holds no CSV but a {kind} file; give that file itself, or write a CSV of it"
        )
    for start, (how, remedy) in ENCODED.items():
        if head.startswith(start):
            raise ValueError(f"{name} is {how}, and CSV is wanted as plain text in UTF-8: {remedy}")
    names, ended, _ = head.partition(b"\n")
    if b"\r" in names.rstrip(b"\r"):
        raise ValueError(
            f"{name} ends its lines with a carriage return alone: tr '\\r' '\\n' < FILE > lines.csv"
        )
    if names.removeprefix(BOM).startswith(b"sep="):  # for Excel, which shows it to nobody
        raise ValueError(f"{name} begins with a line on its separator: tail -n +2 FILE > plain.csv")
    for separator in (";", "\t", "|"):
        if separator.encode() in names and b"," not in names:
            raise ValueError(
                f"{name} has {separator!r} between its columns, and commas are wanted: polars.read_csv(FILE, "
                f"separator={separator!r}).write_csv('commas.csv'), decimal_comma=True for numbers like 1,5"
            )
        if separator.encode() in names and b'"' not in names:
            warnings.warn(
                f"{name} has {separator!r} within the names of its columns; if that is what stands between "
                f"them: polars.read_csv(FILE, separator={separator!r}).write_csv('commas.csv')",
                UserWarning,
                stacklevel=3,
            )
    if (ended or len(head) < HEADER) and _is_row(called := header(names + ended, name)):
        warnings.warn(
            f"{name} has numbers for names, {called[0]!r} first: if its first line is a row, it is lost; a "
            "line of names comes first",
            UserWarning,
            stacklevel=3,
        )


def header(line: bytes, name: str) -> list[str]:
    """Return the names of the columns in the first line of a CSV.

    Parameters
    ----------
    line : bytes
    name : str
        What messages call the file.

    Raises
    ------
    ValueError
        It is empty, no text in UTF-8, not closed on one line, or has a name twice.
    """
    try:
        names = next(csv.reader([line.removeprefix(BOM).decode()], strict=True), [])
    except UnicodeDecodeError as error:
        check_encoding(name, "FILE > utf8.csv", error)
        raise
    except csv.Error as error:
        raise ValueError(
            f"{name} could not be read as CSV: its line of names is not whole ({error}): "
            f"quotes are closed on it, and a name has at most {csv.field_size_limit():,} letters"
        ) from error
    if not names:
        raise ValueError(
            f"{name} could not be read as CSV: its first line is empty; a line of names comes first"
        )
    doubled = [one for i, one in enumerate(names) if one in names[:i]]
    if doubled:
        row = ", or write a line of names before the first row" if number(doubled[0]) is not None else ""
        raise ValueError(f"{name} has more than one column named {doubled[0]!r}; rename one of them{row}")
    return names


def _is_row(names: Sequence[str]) -> bool:
    """Tell whether a line of names looks like a row: numbers, and not such as number the columns."""
    numbers = [number(one) for one in names]
    rising = [one for one in numbers if one is not None]
    return len(rising) == len(numbers) and rising != sorted(rising)


def number(text: str) -> float | None:
    """Return the number that a text is, or None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def check_encoding(name: str, rest: str, error: BaseException) -> None:
    """Raise ValueError where a CSV could not be read since it is not in UTF-8.

    Parameters
    ----------
    name : str
        What messages call it.
    rest : str
        Of the command that makes UTF-8 of it.
    error : exception
    """
    if "utf-8" in str(error).lower():
        raise ValueError(
            f"{name} is no text in UTF-8; if it is in Latin-1: iconv -f latin1 -t utf-8 {rest}"
        ) from error


def check_lines(lines: Iterable[str], count: int, name: str) -> None:
    """Raise ValueError where a line has too few cells, which polars fills up without a word.

    Parameters
    ----------
    lines : iterable of str
        The first is that of the names.
    count : int
        Cells that are wanted; a line of one cell may be empty.
    name : str
        What messages call the file.
    """
    empty = None  # at the end such lines are nothing
    with suppress(csv.Error):  # a cell too long for this reader
        for row, cells in enumerate(csv.reader(lines), -1):
            given = max(1, len(cells))
            if not cells and count > 1:
                empty = row if empty is None else empty
                continue
            if empty is not None:
                raise ValueError(f"row {empty} of {name}, counted from 0, is an empty line; drop the line")
            if given < count:
                line = ",".join(cells)
                raise ValueError(
                    f"row {row} of {name}, counted from 0, has {given} cell{'s' * (given != 1)}, {count} are "
                    f"wanted (it is {line[:SHOWN] + '...' * (len(line) > SHOWN)}); mend or drop the line"
                )


def empty_lines(source: Path | bytes) -> int:
    """Return how many empty lines a CSV ends with, as far as its last 64 KiB tell.

    Parameters
    ----------
    source : Path or bytes
    """
    tail = source[-TAIL:] if isinstance(source, bytes) else _end_of(source)
    after = tail[len(tail.rstrip(b"\r\n")) :]
    return max(0, after.count(b"\n") - 1)


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read()


def with_numbers(frame: Any, texts: Sequence[str]) -> Any:
    """Return a polars frame in which cells like `" 5"`, `+5` and `""` are numbers among numbers.

    Parameters
    ----------
    frame : polars.DataFrame
    texts : sequence of str
        Columns that are texts whatever their cells look like.
    """
    import polars

    found = []
    for name, kind in frame.schema.items():
        if kind == polars.String and name not in texts:
            cells = bare(frame[name])
            numbers = cells.cast(polars.Float64, strict=False)
            if cells.null_count() == numbers.null_count() < len(numbers):
                found.append(numbers)
    return frame.with_columns(found)


def bare(cells: Any) -> Any:
    """Return texts of a polars column or expression without blanks around them; nothing else is missing."""
    return cells.str.strip_chars().replace("", None)
