"""Representation -> one number a row, high = anomalous."""

from __future__ import annotations

from torch import Tensor


def gradcon_score(loss: Tensor, cosine: Tensor, beta: float) -> Tensor:
    """Return loss - beta * mean cosine, (n,), high = anomalous.

    Parameters
    ----------
    loss : torch.Tensor, (n,)
        Reconstruction loss.
    cosine : torch.Tensor, (n, l)
        Alignment of each row's gradient with the mean training gradient, a column a layer.
    beta : float
        Weight of the alignment; 4 alpha in the paper.

    References
    ----------
    Kwon et al., "Backpropagated Gradient Representations for Anomaly Detection", ECCV 2020. The
    published code returns the negative.
    """
    return loss - beta * cosine.mean(1)
