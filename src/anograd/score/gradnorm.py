"""The length of a classifier's last-layer gradient under a uniform label, in closed form."""

from __future__ import annotations

from torch import Tensor, nn

from anograd.features import Features, Samples


class UniformGradient(nn.Module):
    """Minus the L1 length of the last layer's gradient of KL(uniform, softmax), high = anomalous.

    Reads two numbers a row: the L1 lengths of the layer's input and of softmax - uniform, whose
    product it is. A classifier is sure of rows of its kind, so their gradients are long.

    References
    ----------
    Huang, Geng, Li: On the Importance of Gradients for Detecting Distributional Shifts in the Wild.
    NeurIPS 2021, arXiv:2110.00218.
    """

    def fit(self, samples: Samples) -> None:
        """Learn nothing: the score has no parameters."""

    def forward(self, features: Features) -> Tensor:
        """Return the scores, (n,) float64, of the two lengths (n, 2)."""
        return -features.values.double().prod(1)
