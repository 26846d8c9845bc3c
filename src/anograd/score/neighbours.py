"""How far a row's gradient lies from the nearest ones among normal rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anograd.alarm.standard import Standard
from anograd.features import Features, Samples

MOST_REFERENCES = 4096  # normal rows that are kept; the first ones, which are in random order

# In units of a row's own length. The rounding of gradients in single precision, of entries that hardly vary,
# comes to half of it, and a matrix product keeps five digits.
NOTHING = 1e-4


class Neighbours(nn.Module):
    """The mean distance to the nearest gradients of normal rows, high = anomalous.

    Entries are standardised over normal rows and put on a signed logarithmic scale first.

    Parameters
    ----------
    features : int
        Gradient entries k.
    neighbours : int, default 5
        How many nearest ones count.

    Attributes
    ----------
    rows : torch.Tensor, (m, k)
        Scaled gradients of normal rows, at most 4096.
    """

    rows: Tensor

    def __init__(self, features: int, *, neighbours: int = 5) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.standard = Standard(features).double()
        self.register_buffer("rows", torch.zeros(0, features, dtype=torch.float64))

    def fit(self, samples: Samples) -> None:
        """Keep normal rows to compare with."""
        kept: list[Tensor] = []
        for piece in samples.train():
            kept.append(piece.values)
            if sum(map(len, kept)) >= MOST_REFERENCES:
                break
        rows = torch.cat(kept)[:MOST_REFERENCES]
        floor = 1e-6 if rows.dtype == torch.float64 else 1e-3  # of single precision little is left below
        rows = rows.double()
        self.standard.fit([rows], floor)
        self.rows = self.standard(rows)

    def forward(self, features: Features) -> Tensor:
        """Return the scores, (n,) float64, of gradients (n, k)."""
        x = self.standard(features.values.double())
        distance = torch.cdist(x, self.rows, compute_mode="use_mm_for_euclid_dist")
        # By way of a matrix product a distance of nothing comes out as rounding, which must not count.
        distance = torch.where(distance < NOTHING * (1 + x.norm(dim=1, keepdim=True)), 0, distance)
        count = min(self.neighbours, len(self.rows))
        return distance.topk(count, largest=False).values.mean(1)
