"""Scores of many pieces become verdicts: row by row, or in a second look once all are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anograd.decide import Calibration
from anograd.decoded import Unlike
from anograd.report import Floats, Judged


@dataclass(frozen=True)
class Summary:
    """What became of a file.

    Attributes
    ----------
    rows : int
        How many there are, those that were rejected among them.
    rejected : int
    alarms : int
    unlike : sequence of Unlike
        Columns in which many rows hold what no row held that was learned from.
    """

    rows: int = 0
    rejected: int = 0
    alarms: int = 0
    unlike: Sequence[Unlike] = ()


class Verdicts:
    """Judges pieces one after the other, and counts.

    Parameters
    ----------
    calibration : Calibration
    rule : dict
        Arguments of `Calibration.detect`.
    called : sequence of str, optional
        What the rows are called; their numbers without it.

    Attributes
    ----------
    by_row : bool
        Whether a row is judged alone; else `look` comes before the first piece.
    summary : Summary
        Of the pieces so far.
    """

    def __init__(
        self, calibration: Calibration, rule: dict[str, Any], called: Sequence[str] | None = None
    ) -> None:
        self._calibration, self._rule, self._called = calibration, rule, called
        self.by_row = set(rule) <= {"alpha"}
        self.summary = Summary()
        self._alarms: NDArray[np.bool_] | None = None

    def look(self, pieces: Iterable[Floats]) -> None:
        """Judge all rows together.

        Parameters
        ----------
        pieces : iterable of ndarray
            All scores in order, NaN for a row that was rejected.
        """
        scores = np.concatenate(list(pieces))
        sound = ~np.isnan(scores)
        self._alarms = np.zeros(len(scores), dtype=bool)
        self._alarms[sound] = self._calibration.detect(scores[sound], **self._rule)

    def of(self, first: int, scores: Floats) -> Judged:
        """Return rows, scores, p values and alarms of a piece, without the rows that were rejected.

        Parameters
        ----------
        first : int
            Number of its first row.
        scores : ndarray (b,)
            NaN for a row that was rejected.
        """
        sound = np.flatnonzero(~np.isnan(scores))
        rows, kept = first + sound, scores[sound]
        if self._alarms is not None:
            alarms = self._alarms[rows]
        else:
            alarms = self._calibration.detect(kept, **self._rule)
        so_far = self.summary
        self.summary = Summary(
            so_far.rows + len(scores),
            so_far.rejected + len(scores) - len(kept),
            so_far.alarms + int(alarms.sum()),
        )
        named = [self._called[row] for row in rows.tolist()] if self._called else rows
        return named, kept, self._calibration.p_values(kept), alarms
