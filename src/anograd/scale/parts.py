"""A folder of Parquet parts becomes a folder of scores, part by part: each whole, or not there at all."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from anograd import store
from anograd._version import __version__
from anograd.detectors.changed import tally_of
from anograd.files import parquet_files
from anograd.scale.scorer import Scorer
from anograd.whole import written_whole

READ_AT_ONCE = 16_384  # rows
NOTE = b"anograd"  # where a part of scores says what it was made of


@dataclass(frozen=True)
class Part:
    """A part of the input and the part of the output with its scores.

    Attributes
    ----------
    name : str
        Below the folder of the input, and below that of the output.
    source, output : str
    """

    name: str
    source: str
    output: str


@dataclass(frozen=True)
class Done:
    """What became of a part.

    Attributes
    ----------
    name : str
    rows, alarms : int
    counts : tuple of int
        Those of a `Tally`, of a model of tables.
    kept : bool
        Whether an earlier run had scored it.
    """

    name: str
    rows: int
    alarms: int
    counts: tuple[int, ...]
    kept: bool = False


def find_parts(source: str | Path, output: str | Path) -> list[Part]:
    """Return the parts of a folder of Parquet files, or of one file, in the order of their names.

    Parameters
    ----------
    source : str or Path
        Searched through all its subfolders, but for names that begin with "." or "_".
    output : str or Path
        The folder that gets a part of the same name for each.

    Raises
    ------
    FileNotFoundError
        There is no part.
    ValueError
        The output is a file or the input itself, or holds parts that belong to none of the input.
    """
    below, into = Path(source).resolve(), Path(output).resolve()
    found = parquet_files(below)
    if not found:
        raise FileNotFoundError(
            f"there is no Parquet file in {str(source)!r}; wanted is a folder with parts such as 0.parquet"
        )
    root = below if below.is_dir() else below.parent
    if into == root or into.is_relative_to(root) or (into.exists() and not into.is_dir()):
        raise ValueError(
            f"{str(output)!r} is a file, or within the input; a folder of its own is wanted: -o scores"
        )
    parts = [Part(p.relative_to(root).as_posix(), str(p), str(into / p.relative_to(root))) for p in found]
    strangers = sorted({str(path) for path in parquet_files(into)} - {part.output for part in parts})
    if strangers:
        raise ValueError(
            f"{str(output)!r} holds parts that are none of {str(source)!r}, {strangers[0]!r} first; "
            "remove them, or give another folder"
        )
    return parts


def kept(scorer: Scorer, part: Part) -> Done | None:
    """Return what an earlier run has made of a part, None where it made nothing or something else.

    Parameters
    ----------
    scorer : Scorer
    part : Part
    """
    import pyarrow
    from pyarrow import parquet

    try:
        note = json.loads((parquet.read_metadata(part.output).metadata or {})[NOTE])
        done = Done(part.name, note["rows"], note["alarms"], tuple(note["counts"]), kept=True)
    except (OSError, pyarrow.ArrowException, KeyError, ValueError):
        return None
    return done if note["of"] == _origin(scorer, part) else None


def score_part(scorer: Scorer, part: Part) -> Done:
    """Score a part in memory that does not grow with it, and write its scores in order.

    They are there whole, under their name, or not at all; a part that is scored twice, because the process
    that began was killed, is replaced by itself.

    Parameters
    ----------
    scorer : Scorer
    part : Part

    Raises
    ------
    ValueError
        The part is damaged, or as in `score_batch`.
    OSError
        It could not be written.
    """
    import pyarrow
    from pyarrow import parquet

    rows = alarms = 0
    tally = tally_of(scorer.detector())
    origin = _origin(scorer, part)  # before it is read: a part that changes meanwhile is made anew next time
    Path(part.output).parent.mkdir(parents=True, exist_ok=True)
    try:
        with parquet.ParquetFile(part.source) as opened, written_whole(part.output) as file:
            names = _wanted(scorer, opened.schema_arrow.names)
            nothing = opened.schema_arrow.empty_table().select(names)
            with parquet.ParquetWriter(file, scorer(nothing).schema) as writer:
                for batch in opened.iter_batches(READ_AT_ONCE, columns=names):
                    try:
                        found = scorer(pyarrow.Table.from_batches([batch]).select(names), tally)
                    except ValueError as error:
                        which = f"in rows {rows:,} to {rows + len(batch) - 1:,}, counted from {rows:,}"
                        raise ValueError(f"{which}: {error}") from error
                    writer.write_table(found)
                    rows += len(found)
                    alarms += int(np.sum(found["anomaly"].to_numpy()))
                counts = [] if tally is None else tally.counts.tolist()
                note = {"of": origin, "rows": rows, "alarms": alarms, "counts": counts}
                writer.add_key_value_metadata({NOTE.decode(): json.dumps(note)})
    except pyarrow.ArrowException as error:
        raise ValueError(f"it could not be read, it is damaged or cut short: {error}") from error
    return Done(part.name, rows, alarms, tuple(counts))


def check(scorer: Scorer, part: Part) -> None:
    """Load the model and look at a part's columns, so that what is wrong shows before any work.

    Parameters
    ----------
    scorer : Scorer
    part : Part

    Raises
    ------
    ValueError
        No such model, or the part has other columns than it was fitted on.

    Warns
    -----
    UserWarning
        As in `Calibration.detect`.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(part.source) as opened:
            names = _wanted(scorer, opened.schema_arrow.names)
            some = list(islice(opened.iter_batches(1, columns=names), 1))
            scorer(pyarrow.Table.from_batches(some, opened.schema_arrow.empty_table().select(names).schema))
    except pyarrow.ArrowException:
        scorer.detector()  # the part is told of with all others that are damaged


def _wanted(scorer: Scorer, there: Sequence[str]) -> list[str]:
    """Return the columns to read: those that the detector was fitted on, and those to take over."""
    fitted = getattr(scorer.detector(), "feature_names_in_", there)
    return [name for name in there if name in {*fitted, *scorer.columns}]


def _origin(scorer: Scorer, part: Part) -> dict[str, Any]:
    """Return what the scores of a part depend on."""
    about = os.stat(part.source)
    return {
        "version": __version__,
        "model": store.fingerprint(scorer.model),
        "alpha": scorer.alpha,
        "columns": list(scorer.columns),
        "source": [about.st_size, about.st_mtime_ns],
    }
