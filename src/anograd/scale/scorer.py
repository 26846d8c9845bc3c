"""The function that Ray Data, Dask and Spark map over the batches of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from anograd import store
from anograd.data import frame_library
from anograd.decoded import Tally
from anograd.detectors import Detector, load
from anograd.report import COLUMNS
from anograd.stream import score_batch

# What a pass records belongs to the network: engines that call from several threads wait for each other.
ONE_AT_A_TIME = Lock()


@dataclass(frozen=True)
class Scorer:
    """Makes a table of scores of a table; may be sent to other processes, which load the detector themselves.

    Each of them keeps the detector that it has loaded, until the folder holds another one.

    Parameters
    ----------
    model : str
        The folder of a saved detector, which every process finds under the same absolute name.
    alpha : float, default 0.05
        False-alarm rate of the verdict, row by row.
    columns : tuple of str, default ()
        Columns that are taken over, such as a row's id.

    Raises
    ------
    ValueError
        One of them is called as a score is, or is there twice.

    Examples
    --------
    >>> Scorer("/shared/model", columns=("id",))
    Scorer(model='/shared/model', alpha=0.05, columns=('id',))
    """

    model: str
    alpha: float = 0.05
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(Path(self.model).resolve()))  # other processes start elsewhere
        if isinstance(self.columns, str):
            raise ValueError(f"columns={self.columns!r}: a tuple of names is wanted, ({self.columns!r},)")
        taken = [*COLUMNS[1:], *self.columns]
        doubled = next((name for name in self.columns if taken.count(name) > 1), None)
        if doubled is not None:
            raise ValueError(
                f"a column {doubled!r} is to be taken over, and would stand twice beside the scores, which "
                f"have {', '.join(COLUMNS[1:])} already: leave it out, or rename it in the rows"
            )

    def __call__(self, table: Any, tally: Tally | None = None) -> Any:
        """Return `columns`, score (high = anomalous), p_value (low = anomalous) and anomaly (0 or 1).

        Parameters
        ----------
        table : pyarrow.Table, pandas.DataFrame or polars.DataFrame
            Holds the columns that the detector was fitted on; the result is of the same library, and of
            pandas has the same index.
        tally : Tally, optional
            Counts the rows that are unlike those of the fit.

        Raises
        ------
        ValueError
            As in `score_batch`, or there is no such column to take over.
        """
        library = frame_library(table)
        with ONE_AT_A_TIME:
            found = score_batch(self.detector(), table, alpha=self.alpha, tally=tally)
        missing = [name for name in self.columns if name not in _names(table)]
        if missing:
            raise ValueError(
                f"the table has no column {missing[0]!r} to take over, it has {', '.join(_names(table))}"
            )
        if library == "pandas":
            found = found.drop(columns="row").set_axis(table.index)
            for i, name in enumerate(self.columns):
                found.insert(i, name, table[name])
            return found
        found = found.drop("row") if library == "polars" else found.drop_columns("row")
        for i, name in enumerate(self.columns):
            if library == "polars":
                found.insert_column(i, table[name])
            else:
                found = found.add_column(i, name, table[name])
        return found

    def batches(self, tables: Iterable[Any]) -> Iterator[Any]:
        """Yield the scores of each batch: what Spark's ``mapInArrow`` and ``mapInPandas`` call.

        Parameters
        ----------
        tables : iterable of pyarrow.RecordBatch or pandas.DataFrame
        """
        for table in tables:
            if frame_library(table) is not None:
                yield self(table)
                continue
            import pyarrow

            yield from self(pyarrow.Table.from_batches([table])).to_batches()

    def detector(self) -> Detector:
        """Return the detector, loaded where this process has not loaded it yet."""
        manifest = Path(self.model, store.MANIFEST)
        return _loaded(self.model, manifest.stat().st_mtime_ns if manifest.exists() else 0)


@lru_cache(maxsize=2)
def _loaded(model: str, changed: int) -> Detector:
    return load(model)


def _names(table: Any) -> list[str]:
    return list(table.column_names if hasattr(table, "column_names") else table.columns)
