"""Representation -> one number a row, high = anomalous."""

from __future__ import annotations

import torch
from torch import Tensor

PUBLISHED_BETA = 0.12
QUARTILES = (0.25, 0.75)


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


def equal_spread(loss: Tensor, cosine: Tensor) -> float:
    """Return the weight that makes mean cosines spread as much over these rows as the losses do, above 0.

    Spread is the distance between quartiles, which few odd rows among them hardly move. Where one of the two
    does not vary, the paper's 0.12.

    Parameters
    ----------
    loss : torch.Tensor, (n,)
        Of normal rows, as many as can be that the network did not learn from.
    cosine : torch.Tensor, (n,)
        The mean cosine of each of them.

    Examples
    --------
    >>> equal_spread(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.25, 0.5, 0.75]))
    4.0
    """
    both = torch.stack([loss, cosine]).double()
    low, high = both.quantile(both.new_tensor(QUARTILES), dim=1)
    of_loss, of_cosine = (high - low).tolist()
    return of_loss / of_cosine if of_loss > 0 and of_cosine > 0 else PUBLISHED_BETA
