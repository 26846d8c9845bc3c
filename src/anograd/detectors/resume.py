"""When an interrupted fit may go on: with the same rows, and the same settings where they count."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from anograd.checkpoint import Keeper, digest
from anograd.detectors.base import Detector
from anograd.detectors.settings import CHANGEABLE
from anograd.detectors.split import Split
from anograd.ranks import together
from anograd.spill import Rows

READ_AT_ONCE = 4096  # rows


def keeper(detector: Detector, network: Mapping[str, Any], rows: Rows, split: Split, seed: int) -> Keeper:
    """Return what keeps the stages of a fit in the detector's `checkpoint`, or keeps nothing without one.

    Where ranks train together its fingerprint tells whether they were given the same.

    Parameters
    ----------
    detector : Detector
    network : mapping
        The network as plain data.
    rows : Rows
    split : Split
    seed : int

    Raises
    ------
    ValueError
        The file that is there was left by a fit with other data or settings, or is damaged.
    """
    parameters = detector.get_params(deep=False)
    path = parameters["checkpoint"]
    ranks = together()
    if path is None and ranks.world == 1:
        return Keeper(None, "")
    told = {name: value for name, value in parameters.items() if name not in CHANGEABLE}
    pieces = (rows.take(slice(i, i + READ_AT_ONCE)) for i in range(0, len(rows), READ_AT_ONCE))
    parts = chain((split.train, split.validation, split.known), pieces)
    return Keeper(path, digest([told, network, seed, list(rows.shape)], parts), ranks)
