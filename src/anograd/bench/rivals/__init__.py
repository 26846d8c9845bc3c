"""Everyone who takes part, by the name that a run file calls it.

>>> ENTRANTS["prenet"].known
'needed'
"""

from __future__ import annotations

from anograd.bench.entrants import Entrant
from anograd.bench.rivals import (
    a3,
    anogan,
    classical,
    columns,
    deepsad,
    devnet,
    own,
    pixelcnn,
    prenet,
    pyod,
    tails,
)

__all__ = ["ENTRANTS"]

ENTRANTS: dict[str, Entrant] = {
    **own.ENTRANTS,
    **a3.ENTRANTS,
    **columns.ENTRANTS,
    **classical.ENTRANTS,
    **tails.ENTRANTS,
    **pyod.ENTRANTS,
    **deepsad.ENTRANTS,
    **devnet.ENTRANTS,
    **prenet.ENTRANTS,
    **pixelcnn.ENTRANTS,
    **anogan.ENTRANTS,
}
