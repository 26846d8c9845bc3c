"""Files of any size become a file of scores: read, scored and kept piece by piece, written in the end."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import tempfile
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial as bound
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from anograd import report, store
from anograd._version import __version__
from anograd.data import names, number_of_rows, scan
from anograd.decoded import Tally
from anograd.detectors import Detector, load
from anograd.detectors.changed import tally_of
from anograd.files import check_folder, is_pipe, opened, parquet_files
from anograd.labelled import left_out, read_features
from anograd.reading import extra
from anograd.report import Floats, Judged
from anograd.stream.batch import score_encoded
from anograd.stream.delimited import Delimited
from anograd.stream.partial import Partial
from anograd.stream.pieces import CELLS, InMemory, Parts, Pictures, Piece, Place, Source, rows_of_a_piece
from anograd.stream.verdicts import Summary, Verdicts
from anograd.whole import to_stdout, written_whole

STDOUT = "-"
HEAD = 2**16  # bytes that tell a file from another one of the same size and time
REJECTS = ("row", "reason", "line")
SHOWN = 120  # letters of a row
NO_NUMBER = "its score is no number; its values may be far outside of the training data"
Submit = Callable[..., Callable[[], Floats]]


@dataclass(frozen=True)
class Scored:
    """A piece with its scores.

    Attributes
    ----------
    first : int
        Number of its first row.
    scores : ndarray (b,)
        NaN for a row that was rejected.
    rejects : bytes
        Lines of CSV that say why.
    after : Place
        Where the source goes on.
    """

    first: int
    scores: Floats
    rejects: bytes
    after: Place


def score_file(
    model: str | Path,
    data: str,
    output: str,
    *,
    rule: Mapping[str, Any] | None = None,
    label: str | None = None,
    rejects: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Write row, score (high = anomalous), p_value and anomaly of each row to a file, whole or not at all.

    Memory does not grow with the number of rows of a table in CSV or Parquet, or of pictures in a folder, but
    for 26 bytes a row where the rule looks at all rows together. A run that was killed goes on where it was,
    when it is called again with the same model, data and options.

    Parameters
    ----------
    model : path
        The folder that `Detector.save` wrote.
    data : str
        What `anograd.data.scan` takes; ``-`` for CSV on standard input.
    output : str
        ``x.csv``, ``x.parquet``, a device or pipe, or ``-`` for CSV on standard output.
    rule : mapping, optional
        Arguments of `Calibration.detect`, ``{"alpha": 0.05}`` by default. By `alpha` a row is judged alone;
        any other rule waits for all of them.
    label : str, optional
        A column to leave out.
    rejects : str, optional
        A CSV file for rows of a table, or pictures, that cannot be read or scored: their number, the reason,
        and what was given. Without it the first such row is an error.
    tell : callable, optional
        Is told in words where an earlier run is continued, or why it is not.

    Returns
    -------
    Summary

    Raises
    ------
    ValueError
        A row that cannot be scored, no row at all, files that cannot be read, or one file for both outputs.
    OSError
        The disk is full, or writing is not allowed; what was scored is kept where that took a while.

    Warns
    -----
    UserWarning
        A file of the input changed meanwhile.
    """
    if rejects is not None and Path(rejects).resolve() == Path(output).resolve():
        raise ValueError(f"rejects {rejects} is the file of the scores; give another, such as rejects.csv")
    detector = load(model)
    pictures = called = names(data)
    if called and Path(output).suffix.lower() == ".parquet":  # which holds text, and names of files need not
        called = [one.encode(errors="backslashreplace").decode() for one in called]
    verdicts = Verdicts(detector.calibration_, dict(rule or {"alpha": 0.05}), called)
    strict = rejects is None
    with ExitStack() as stack:
        source = _source(detector, data, label, pictures, stack)
        tally = tally_of(detector)
        if verdicts.by_row and not _is_file(output):
            pieces = scored(detector, source, Place(), strict=strict, tally=tally)
            return _with(tally, _pour(pieces, output, rejects, verdicts))
        folder, resumes = _folder(output, data, stack)
        key: dict[str, Any] = (
            _key(model, data, label, strict, pictures) if resumes else {"run": uuid.uuid4().hex}
        )
        partial, done = Partial(folder, key), False
        try:
            if partial.changed:
                tell(f"starting anew: the {partial.changed[0]} changed since a run was interrupted")
            if partial.place.rows:
                tell(f"going on from row {partial.place.rows:,} of an interrupted run")
            if tally is not None and len(partial.counts) == len(tally.counts):
                tally.counts += partial.counts  # of the rows before
            for piece in scored(detector, source, partial.place, strict=strict, tally=tally):
                counts = () if tally is None else tally.counts.tolist()
                partial.add(piece.scores, piece.rejects, piece.after, counts)
            if resumes and _changed(data, key["input"]):
                warnings.warn(
                    f"{data!r} changed while it was scored: the scores are of what was there when each piece "
                    f"was read, and rows may be missing; score it again once it is whole",
                    stacklevel=2,
                )
            summary = _write(partial, output, rejects, verdicts)
            done = True
        finally:
            partial.close(keep=resumes and partial.vouched and not done)
    return _with(tally, summary)


def _with(tally: Tally | None, summary: Summary) -> Summary:
    return summary if tally is None else replace(summary, unlike=tally.many())


def scored(
    detector: Detector, source: Source, place: Place, *, strict: bool, tally: Tally | None = None
) -> Iterator[Scored]:
    """Return the pieces of a source with their scores, in order.

    Several are scored at once, each by one thread, which keeps more cores busy than to share out a batch.

    Parameters
    ----------
    detector : Detector
    source : Source
    place : Place
        Where to begin.
    strict : bool
        Whether a row that cannot be scored is an error.
    tally : Tally, optional
        Counts the rows of a table that are unlike those of the fit, of the pieces so far.

    Raises
    ------
    ValueError
        There is such a row, or no row at all.
    """
    rows = place.rows
    with _workers(detector) as (count, submit):
        waiting: deque[Callable[[], Scored]] = deque()
        for piece in source.pieces(place):
            rows += piece.count
            waiting.append(_begin(detector, source, piece, submit, strict=strict, tally=tally))
            if len(waiting) > count:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()
    if not rows:
        raise ValueError(f"{source.name} holds no row; at least one is wanted")


def _begin(
    detector: Detector, source: Source, piece: Piece, submit: Submit, *, strict: bool, tally: Tally | None
) -> Callable[[], Scored]:
    """Encode a piece and begin to score it; return what waits for the end."""
    found: Callable[[], Floats] = lambda: np.zeros(0)  # noqa: E731, of no row
    places, why = np.zeros(0, dtype=np.int64), dict(piece.unread)
    if number_of_rows(piece.X):
        rows, sound, unsound = _encoded(detector, piece.X)
        kept = np.asarray(piece.kept)
        places = kept[sound]
        why |= {int(kept[row]): reason for row, reason in unsound.items()}
        if len(rows):
            found = submit(score_encoded, detector, rows)
    if strict and why:
        raise _refused(source, piece, why)

    def finish() -> Scored:
        scores = np.full(piece.count, np.nan)
        scores[places] = found()
        if tally is not None and len(places):  # not before, so that what is counted is what is scored
            tally.add(rows.numpy())
        why.update(dict.fromkeys(places[np.isnan(scores[places])].tolist(), NO_NUMBER))
        if strict and why:
            raise _refused(source, piece, why)
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerows((piece.first + row, why[row], piece.line(row)) for row in sorted(why))
        return Scored(piece.first, scores, lines.getvalue().encode(), piece.after)

    return finish


def _encoded(detector: Detector, X: Any) -> tuple[torch.Tensor, NDArray[np.int64], dict[int, str]]:
    """Return what `Encoder.sound` does; tensors are encoded already."""
    if isinstance(X, torch.Tensor):
        return X, np.arange(len(X)), {}
    return detector.encoder_.sound(detector, X)


def _refused(source: Source, piece: Piece, why: Mapping[int, str]) -> ValueError:
    row = min(why)
    line = piece.line(row)
    return ValueError(
        f"row {piece.first + row} of {source.name}, counted from 0, cannot be scored: {why[row]} (it is "
        f"{line[:SHOWN] + '...' * (len(line) > SHOWN)}); mend or drop it, or let such rows go to a file and "
        "the others be scored: --rejects rejects.csv"
    )


@contextmanager
def _workers(detector: Detector) -> Iterator[tuple[int, Submit]]:
    """Give how many pieces are scored at once, and a function that begins to call another one."""
    threads = torch.get_num_threads()
    if threads == 1 or detector._device().type != "cpu":
        yield 1, bound
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield threads, lambda function, *given: pool.submit(function, *given).result
    finally:
        torch.set_num_threads(threads)


def _source(
    detector: Detector, data: str, label: str | None, pictures: list[str] | None, stack: ExitStack
) -> Source:
    """Return where the rows come from."""
    fitted = getattr(detector, "feature_names_in_", None)
    table = detector.encoder_.table
    if table is not None:
        path = Path(data)
        if is_pipe(data) or (path.suffix.lower() == ".csv" and path.is_file()):
            extra("polars", "tables", path)
            file, name = stack.enter_context(opened(data))
            return Delimited(name, file, table, lambda there: left_out(there, data, label, fitted))
        if files := parquet_files(data):
            there = scan(data).collect_schema().names()
            without = set(left_out(there, data, label, fitted))
            columns = [name for name in there if name not in without]
            table.check_columns(columns, len(columns))
            return Parts(repr(data), files, columns)
    elif pictures is not None and label is None:
        check_folder(data, pictures)
        return Pictures(Path(data), pictures, detector.encoder_, _images_of_a_piece(detector))
    X = read_features(data, label, fitted)
    if table is None:  # looked at as a whole, so that a flaw is named by its place among all of them
        return InMemory(repr(data), detector.encoder_.transform(detector, X), _images_of_a_piece(detector))
    return InMemory(repr(data), X, number_of_rows(X) if X.ndim != 2 else rows_of_a_piece(X.shape[1]))


def _images_of_a_piece(detector: Detector) -> int:
    step = detector._at_once()
    return step * max(1, CELLS // (step * math.prod(detector.encoder_.shape)))


def _is_file(output: str) -> bool:
    """Tell whether an output is a file to be replaced, not a pipe or device."""
    return output != STDOUT and (not Path(output).exists() or Path(output).is_file())


def _folder(output: str, data: str, stack: ExitStack) -> tuple[Path, bool]:
    """Return where unfinished scores are kept, and whether a later run may go on there."""
    if not _is_file(output):
        return Path(stack.enter_context(tempfile.TemporaryDirectory())), False
    target = Path(output).resolve()
    return target.with_name(f".{target.name}.partial"), not is_pipe(data)


def _key(
    model: str | Path, data: str, label: str | None, strict: bool, pictures: list[str] | None
) -> dict[str, Any]:
    """Return what the scores depend on."""
    return {
        "version of anograd": __version__,
        "model": store.fingerprint(model),
        "input": _input(data, pictures),
        "options": [label, strict],
    }


def _changed(data: str, before: list[Any]) -> bool:
    try:
        return _input(data, names(data)) != before
    except OSError:  # it is gone
        return True


def _input(data: str, pictures: list[str] | None) -> list[Any]:
    """Return what tells that a file, or one in a folder, is not the one that it was."""
    root = Path(data.partition(".npz:")[0] + ".npz" if ".npz:" in data else data)
    within = [root / name for name in pictures or ()]
    files = within or parquet_files(data) or [root]
    with files[0].open("rb") as file:
        head = hashlib.sha256(file.read(HEAD)).hexdigest()
    stats = [(str(path.resolve()), path.stat()) for path in files]
    return [data, head, *([name, one.st_size, one.st_mtime_ns] for name, one in stats)]


def _pour(pieces: Iterator[Scored], output: str, rejects: str | None, verdicts: Verdicts) -> Summary:
    """Write scores to a pipe or device as they come."""
    with ExitStack() as stack:
        aside = stack.enter_context(_rejects(rejects)) if rejects is not None else None

        def judged() -> Iterator[Judged]:
            for piece in pieces:
                if aside is not None:
                    aside.write(piece.rejects)
                yield verdicts.of(piece.first, piece.scores)

        _emit(output, judged())
    return verdicts.summary


def _write(partial: Partial, output: str, rejects: str | None, verdicts: Verdicts) -> Summary:
    """Write what is to stay of a run that scored all rows; it can be killed and called again."""
    if rejects is not None:
        with _rejects(rejects) as aside:
            for lines in partial.rejects():
                aside.write(lines)
    if not verdicts.by_row:
        verdicts.look(partial.scores())

    def judged() -> Iterator[Judged]:
        first = 0
        for scores in partial.scores():
            yield verdicts.of(first, scores)
            first += len(scores)

    _emit(output, judged())
    return verdicts.summary


def _emit(output: str, pieces: Iterator[Judged]) -> None:
    if output != STDOUT:
        report.write_scores(output, pieces)
        return
    for text in report.scores_csv(pieces):
        to_stdout(text.encode(errors="surrogateescape"))


@contextmanager
def _rejects(path: str) -> Iterator[BinaryIO]:
    with written_whole(path) as file:
        file.write((",".join(REJECTS) + "\n").encode())
        yield file
