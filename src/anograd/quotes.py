"""Rows of a CSV: where one ends whose cells are in quotes, and which are none."""

from __future__ import annotations

import re

from anograd.commas import SHOWN

LONGEST = 2**20  # bytes of one row; a quote that is open for longer was never meant as one
# Every alternative is atomic, so that nothing is tried twice.
QUOTED = re.compile(rb'"(?>[^"]|"")*+"')
CELL_OF = rb'(?>"(?>[^"]|"")*+"|[^",\n]*+)'
ROW = re.compile(CELL_OF + rb"(?>," + CELL_OF + rb")*+\r?\n?\Z")
# A line that ends inside of a quoted cell.
OPEN = re.compile(rb'(?>(?>"(?>[^"]|"")*"|[^",][^,]*+|),)*+"(?>[^"]|"")*+\Z')
MISQUOTED = "a quote out of place, or left open"


def whole_rows(block: bytes, *, ended: bool) -> tuple[int, list[bytes] | None]:
    r"""Return where the last whole row ends, and the rows' lines, or None where each line is a row.

    Parameters
    ----------
    block : bytes
        Begins with a row.
    ended : bool
        Whether nothing comes after it.

    Examples
    --------
    >>> whole_rows(b'1,2\n3,"4\n5"\n6', ended=False)
    (12, [b'1,2\n', b'3,"4\n5"\n'])
    """
    if b'"' not in block:
        return len(block) if ended else block.rfind(b"\n") + 1, None
    lines = block.split(b"\n")
    last = lines.pop()
    lines = [line + b"\n" for line in lines] + ([last] if last and ended else [])
    rows: list[bytes] = []
    i = 0
    while i < len(lines):
        row, following = lines[i], i + 1
        if row.count(b'"') % 2 and OPEN.match(row):
            parts, size, odd = [row], len(row), True
            while odd and following < len(lines) and size < LONGEST:
                parts.append(lines[following])
                size += len(lines[following])
                odd ^= bool(lines[following].count(b'"') % 2)
                following += 1
            if odd and following == len(lines) and not ended and size < LONGEST:
                break  # its end is in the next block
            joined = b"".join(parts)
            if odd or not ROW.match(joined):
                following = i + 1  # it has none, or one of another stray quote: the line stands for itself
            else:
                row = joined
        rows.append(row)
        i = following
    return sum(map(len, rows)), rows


def check_quotes(content: bytes, name: str) -> None:
    """Raise ValueError for the first row of a CSV that is none for its quotes.

    Parameters
    ----------
    content : bytes
        All of it, the line of names first.
    name : str
        What messages call the file.
    """
    _, rows = whole_rows(content, ended=True)
    for row, line in enumerate(rows or (), -1):
        if not ROW.match(line):
            text = line.rstrip(b"\r\n").decode(errors="backslashreplace")
            raise ValueError(
                f"row {row} of {name}, counted from 0, could not be read: {MISQUOTED} (it is "
                f"{text[:SHOWN] + '...' * (len(text) > SHOWN)}); mend or drop the line"
            )
