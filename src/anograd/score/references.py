"""Whether a row's gradient points where those of normal rows do, or where those of known anomalies do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anograd.features import Features, Samples


class ReferenceGap(nn.Module):
    """The mean cosine with the anomaly reference less that with the normal one, high = anomalous.

    Only parameters count in which the known anomalies' cosines and normal rows' lie apart. Without a known
    anomaly there is but the normal reference, and the score is minus the mean cosine with it.

    Parameters
    ----------
    columns : int
        Cosines a row: l with the normal reference, then l with the anomalies' where there is one.
    anomalies : bool
        Whether there is one.

    Attributes
    ----------
    weights : torch.Tensor, (columns,)
        What each cosine counts.

    References
    ----------
    Xie et al., "GradSafe: Detecting Jailbreak Prompts for LLMs via Safety-Critical Gradient Analysis",
    ACL 2024, arXiv:2402.13494, for the anomaly reference and the choice of slices.
    """

    weights: Tensor

    def __init__(self, columns: int, *, anomalies: bool) -> None:
        super().__init__()
        self.anomalies = anomalies
        self.register_buffer("weights", torch.zeros(columns, dtype=torch.float64))

    def fit(self, samples: Samples) -> None:
        """Choose the parameters that count: those in which at least half of the widest gap shows."""
        columns = len(self.weights)
        if not self.anomalies:
            self.weights = torch.full_like(self.weights, -1 / columns)
            return
        normal = torch.cat([self._gaps(piece) for piece in samples.held()])
        gap = self._gaps(samples.known).mean(0) - normal.mean(0)
        chosen = (gap >= 0.5 * gap.max()).double()
        if not chosen.any():
            chosen = torch.ones_like(gap)
        chosen = chosen / chosen.sum()
        self.weights = torch.cat([-chosen, chosen])

    def _gaps(self, features: Features) -> Tensor:
        normal, anomalous = features.values.double().chunk(2, dim=1)
        return anomalous - normal

    def forward(self, features: Features) -> Tensor:
        """Return the scores, (n,) float64, in -2..2, of cosines (n, columns)."""
        return (features.values.double() * self.weights).sum(1)
