"""The loss itself: the score that any other has to beat."""

from __future__ import annotations

from torch import Tensor, nn

from anograd.features import Features, Samples


class LossAlone(nn.Module):
    """Each row's loss, such as its reconstruction error, high = anomalous; gradients are not read.

    Parameters
    ----------
    columns : int
        Columns of the features, which it leaves alone.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()

    def fit(self, samples: Samples) -> None:
        """Learn nothing: the score has no parameters."""

    def forward(self, features: Features) -> Tensor:
        """Return the losses, (n,) float64."""
        return features.loss.double()
