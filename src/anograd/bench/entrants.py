"""What takes part: how a detector is fitted, which known anomalies it uses, what it is called in tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from anograd.detectors.paper import Paper

Rows = NDArray[np.float32]
Known = NDArray[np.int8]
Floats = NDArray[np.float64]
Score = Callable[[Rows], Floats]


@dataclass(frozen=True)
class Fitted:
    """What a fit gives.

    Parameters
    ----------
    scores : mapping of str to function
        From rows (m, ...) to one number a row, high = anomalous. The first is named "score"; others are what
        the same fit says besides, such as "twin".
    weights : int or None
        Numbers that its networks were trained to; None where there is no network.
    """

    scores: Mapping[str, Score]
    weights: int | None = None


class Fit(Protocol):
    """Fits one detector."""

    def __call__(self, X: Rows, y: Known, *, seed: int, **settings: Any) -> Fitted:
        """Return the fitted detector's scores.

        Parameters
        ----------
        X : ndarray of float32, (n, p) or (n, C, H, W)
            Rows to learn from.
        y : ndarray of int8, (n,)
            1 marks a known anomaly, 0 every other row.
        seed : int
            Everything that is drawn comes from it.
        **settings
            What a run file says under the detector's name.
        """


@dataclass(frozen=True)
class Entrant:
    """One detector that can be measured.

    Parameters
    ----------
    fit : function
        See `Fit`.
    label : str
        Its name in tables.
    settings : str
        Which settings these are and where they come from, one sentence without its full stop.
    known : {"ignored", "used", "needed"}
        What it does with known anomalies. Where they are ignored they are left out of the rows; where they
        are needed, a protocol without any is no task for it.
    rows : {"any", "flat", "images"}
        Which rows it takes; "flat" has each row of images laid out as one line first.
    paper : Paper, optional
        Where the method comes from; for all that is written here.
    needs : str, optional
        The module that must be installed for it.
    """

    fit: Fit
    label: str
    settings: str
    known: Literal["ignored", "used", "needed"] = "ignored"
    rows: Literal["any", "flat", "images"] = "flat"
    paper: Paper | None = None
    needs: str | None = None
