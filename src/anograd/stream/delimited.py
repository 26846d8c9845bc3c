"""CSV of any length, read block by block; lines that are no row are told apart from those that are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, BinaryIO

from anograd.commas import bare, check_csv, header
from anograd.quotes import MISQUOTED, QUOTED, ROW, whole_rows
from anograd.reading import check_stopped
from anograd.stream.pieces import Piece, Place
from anograd.table import Table

BLOCK = 2**19  # bytes: some ten thousand rows, after each of which a run that is killed may go on
CELL = 2**13  # bytes of a block for each column, so that tables of many columns come in some hundred rows


class Delimited:
    """A CSV file, or standard input, whose columns are read as a fitted table wants them.

    Parameters
    ----------
    name : str
        What messages call it.
    file : binary file
    table : Table
        Says which columns hold numbers, and which categories.
    left_out : callable
        Names of all columns -> those not to read.

    Attributes
    ----------
    names : list of str
        Of all columns.
    """

    def __init__(
        self, name: str, file: BinaryIO, table: Table, left_out: Callable[[list[str]], list[str]]
    ) -> None:
        self.name, self._file, self._table = name, file, table
        first = file.readline()
        check_csv(first, name)
        self._start = len(first)
        self.names = header(first, name)
        without = set(left_out(self.names))
        self._choose([one for one in self.names if one not in without])

    def _choose(self, names: list[str]) -> None:
        """Set which columns are read, and as what."""
        import polars

        table = self._table
        table.check_columns(names, len(names))
        self.columns = names
        kinds = dict(zip(names, table.kinds(), strict=True))
        self._numbers = [name for name in names if kinds[name] == "number"]
        number, text = polars.Float64, polars.String
        self._kinds = [number if kinds.get(name) == "number" else text for name in self.names]

    def pieces(self, place: Place) -> Iterator[Piece]:
        """Return the pieces from a place on."""
        rows, offset = place.rows, place.bytes or self._start
        if place.bytes:
            self._file.seek(place.bytes)
        rest, size = b"", max(BLOCK, CELL * len(self.names))
        while True:
            read = self._file.read(size)
            block = rest + read
            end, lines = whole_rows(block, ended=not read)
            if len(self.names) > 1:  # in a single column an empty line is a cell
                end, lines = _without_the_empty(block, end, lines)
            rest = block[end:]
            if end:
                offset += end
                piece = self._piece(rows, block[:end], lines, offset)
                rows += piece.count
                yield piece
            if not read:
                return

    def _piece(self, first: int, body: bytes, lines: list[bytes] | None, offset: int) -> Piece:
        count = len(lines) if lines is not None else body.count(b"\n") + (not body.endswith(b"\n"))
        frame = self._fast(body, count, lines)
        unread: dict[int, str] = {}
        kept: Sequence[int] = range(count)
        if frame is None:
            frame, unread = self._careful(body.split(b"\n")[:count] if lines is None else lines)
            kept = [row for row in range(count) if row not in unread]

        @cache
        def there() -> list[bytes]:
            return body.split(b"\n") if lines is None else lines

        def line(row: int) -> str:
            return there()[row].rstrip(b"\r\n").decode(errors="backslashreplace")

        return Piece(
            first, count, frame.select(self.columns), kept, line, Place(first + count, offset), unread
        )

    def _fast(self, body: bytes, count: int, lines: list[bytes] | None) -> Any | None:
        """Return the frame where every line is a row without doubt."""
        import polars

        if lines is not None and not all(map(ROW.match, lines)):
            return None
        try:
            frame = self._read(body, self._kinds)
        except (polars.exceptions.PanicException, polars.exceptions.PolarsError) as error:
            check_stopped(error)
            return None
        if len(frame) != count:
            return None
        # A line of too few cells is filled up without a word, one of too many is an error.
        if lines is not None:
            whole = not frame[self.names[-1]].null_count()
        else:
            whole = body.count(b",") == count * (len(self.names) - 1)
        return frame if whole else None

    def _careful(self, lines: list[bytes]) -> tuple[Any, dict[int, str]]:
        """Return the rows among the lines as a frame, and why each other line is none."""
        import polars

        unread, good = {}, []
        for row, line in enumerate(lines):
            given, wanted = QUOTED.sub(b"", line).count(b",") + 1, len(self.names)
            if not ROW.match(line):
                unread[row] = MISQUOTED
            elif given != wanted:
                cells = f"{given} cell{'s' * (given != 1)}, {wanted} are wanted"
                unread[row] = cells if line.strip() else "an empty line"
            elif not _is_text(line):
                unread[row] = "it is no text in UTF-8"
            else:
                good.append(row)
        body = b"".join(lines[row].rstrip(b"\r\n") + b"\n" for row in good)
        texts = self._read(body, [polars.String] * len(self.names))
        texts = texts.with_columns(bare(polars.col(self._numbers)))
        numbers = texts.with_columns(polars.col(self._numbers).cast(polars.Float64, strict=False))
        wrong = set()
        for name in self._numbers:
            for i in (texts[name].is_not_null() & numbers[name].is_null()).arg_true().to_list():
                wrong.add(i)
                unread.setdefault(good[i], f"{texts[name][i]!r} in column {name!r} is no number")
        right = [i for i in range(len(good)) if i not in wrong]
        return numbers[right], unread

    def _read(self, body: bytes, kinds: Sequence[Any]) -> Any:
        """Return lines as a frame; polars, which reads some names differently, is given numbers for them."""
        import polars

        schema = {str(j): kind for j, kind in enumerate(kinds)}
        frame = polars.read_csv((",".join(schema) + "\n").encode() + body, schema=schema)
        frame.columns = self.names
        return frame


def _without_the_empty(block: bytes, end: int, lines: list[bytes] | None) -> tuple[int, list[bytes] | None]:
    """Return what `whole_rows` did, less empty lines at the end: perhaps nothing follows them."""
    if lines is not None:
        while lines and not lines[-1].strip(b"\r\n"):
            end -= len(lines.pop())
        return end, lines
    last = len(block[:end].rstrip(b"\r\n"))
    return (block.find(b"\n", last, end) + 1 or end) if last else 0, None


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
