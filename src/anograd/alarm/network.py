"""R2-AD2's alarm network: gradients at several checkpoints -> one logit a row, high = anomalous.

Small letters in shapes: n rows, T checkpoints, k gradient features.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from anograd.networks import start_as_keras


class PooledBatchNorm(nn.Module):
    """Batch norm of each gradient feature, its statistics pooled over rows and checkpoints.

    In training mode the statistics are those of the batch, and moving averages of them are kept; in
    evaluation mode the moving averages are used and nothing changes.

    Parameters
    ----------
    features : int
        Gradient features k.
    momentum : float, default 0.01
        Weight of a new batch in the moving averages; Keras counts the other way round, 0.99.
    epsilon : float, default 1e-3
        Added to the variance.

    Attributes
    ----------
    gamma, beta : torch.nn.Parameter, (k,)
        Scale and shift, shared by all checkpoints.
    mean, variance : torch.Tensor, (k,)
        The moving averages, at first 0 and 1.

    Notes
    -----
    The moving variance averages the biased variance, as Keras does; ``nn.BatchNorm1d`` takes the unbiased.

    References
    ----------
    Schulze et al., "R2-AD2: Detecting Anomalies by Analysing the Raw Gradient", ECML PKDD 2022.

    Examples
    --------
    >>> norm = PooledBatchNorm(2)
    >>> x = torch.tensor([[[0.0, 10.0], [2.0, 10.0]], [[0.0, 10.0], [2.0, 10.0]]])
    >>> norm(x)[0]
    tensor([[-0.9995,  0.0000],
            [ 0.9995,  0.0000]], grad_fn=<SelectBackward0>)
    >>> norm.mean
    tensor([0.0100, 0.1000])
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, features: int, momentum: float = 0.01, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.gamma = nn.Parameter(torch.ones(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised features, of the shape of x: (n, T, k) or (n, k)."""
        k = len(self.gamma)
        if x.ndim < 2 or x.shape[-1] != k:
            raise ValueError(
                f"the batch norm got features of shape {tuple(x.shape)}, wanted (n, T, {k}) or (n, {k}): "
                f"build it with PooledBatchNorm({x.shape[-1] if x.ndim else 1}) or hand over {k} features"
            )
        mean = x.reshape(-1, k).mean(0) if self.training else self.mean
        centred = x - mean
        variance = self.variance
        if self.training:
            variance = centred.square().reshape(-1, k).mean(0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        standard = centred * (variance + self.epsilon).rsqrt()
        return torch.addcmul(self.beta, standard, self.gamma)


class AlarmNetwork(nn.Module):
    """R2-AD2's classifier of normalised gradients: two LSTMs and dense layers, one logit a row.

    With several checkpoints the first LSTM reads them in order, the second reads the first and hands on its
    last state; each further width is a dense layer with ReLU and dropout. With one checkpoint all widths
    are dense layers.

    Parameters
    ----------
    features : int
        Gradient features k at each checkpoint.
    checkpoints : int
        Checkpoints T.
    widths : sequence of int, default (100, 50, 25, 10)
        Two at least with several checkpoints, else one at least.
    dropout : float, default 0.4
        Share dropped in training: of each LSTM's input, step by step, and after each dense layer.

    Notes
    -----
    Weights start as in Keras: Glorot-uniform kernels, orthogonal recurrent kernels, zero biases, forget
    bias 1. PyTorch's LSTM has two bias vectors where Keras has one; the second is zero and is not trained.

    **Differs from the paper** in that the sigmoid is left out: a logit has no ties where a float32
    probability is 1 already.

    References
    ----------
    Schulze et al., "R2-AD2: Detecting Anomalies by Analysing the Raw Gradient", ECML PKDD 2022.

    Examples
    --------
    >>> AlarmNetwork(126, 3)(torch.zeros(4, 3, 126)).shape
    torch.Size([4])
    """

    def __init__(
        self,
        features: int,
        checkpoints: int,
        widths: Sequence[int] = (100, 50, 25, 10),
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        recurrent = 2 if checkpoints > 1 else 0
        wanted = max(recurrent, 1)
        if checkpoints < 1 or len(widths) < wanted:
            raise ValueError(
                f"an alarm network of checkpoints={checkpoints} got widths={tuple(widths)}: "
                f"checkpoints must be 1 or more, and {wanted} or more widths are wanted for that many"
            )
        self.features, self.checkpoints = features, checkpoints
        self.dropout = Dropout(dropout)
        self.recurrent = nn.ModuleList(
            nn.LSTM(before, after, batch_first=True)
            for before, after in pairwise((features, *widths[:recurrent]))
        )
        dense: list[nn.Module] = []
        read = (features, *widths)[recurrent:]
        for before, after in pairwise(read):
            dense += [nn.Linear(before, after), nn.ReLU(), Dropout(dropout)]
        self.dense = nn.Sequential(*dense, nn.Linear(read[-1], 1))
        start_as_keras(self)
        for lstm in self.recurrent:
            _start_lstm_as_keras(lstm)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the rows, (n,), high = anomalous; x is (n, T, k), or (n, k) where T is 1."""
        given = tuple(x.shape)
        if x.ndim == 2 and self.checkpoints == 1:
            x = x.unsqueeze(1)
        if x.ndim != 3 or x.shape[1:] != (self.checkpoints, self.features):
            raise ValueError(
                f"the alarm network got features of shape {given}, wanted "
                f"(n, {self.checkpoints}, {self.features}): build it with "
                f"AlarmNetwork(features={given[-1] if given else 1}, "
                f"checkpoints={given[1] if len(given) == 3 else 1}) or hand over features of that shape"
            )
        for lstm in self.recurrent:
            x, _ = lstm(self.dropout(x))
        return self.dense(x[:, -1]).squeeze(1)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> AlarmNetwork:
        """Return the network itself, with dropout on or off."""
        super().train(mode)
        # cuDNN differentiates an LSTM only in training mode, which changes nothing in it otherwise.
        self.recurrent.train()
        return self


class AlarmPair(nn.Module):
    """Two alarm networks beside each other: one reads gradients, one the columns of the row itself.

    Parameters
    ----------
    checkpoints, entries : int
        T and k of the gradients, which come first.
    columns : int
        Columns of a row, which come after them; 0 leaves the second network out.
    widths : sequence of int
        Of each network.
    recurrent : bool
        Whether the first reads the checkpoints in order with LSTMs, or all at once with dense layers.

    Attributes
    ----------
    share : torch.Tensor, ()
        How much the first counts, 0 to 1, where there are two; a half at first.
    """

    share: Tensor

    def __init__(
        self, checkpoints: int, entries: int, columns: int, widths: Sequence[int], *, recurrent: bool
    ) -> None:
        super().__init__()
        self.sizes = [checkpoints * entries, columns]
        in_time = recurrent and checkpoints > 1
        steps = (checkpoints, entries) if in_time else (1, checkpoints * entries)
        reading = [nn.Sequential(nn.Unflatten(1, steps), AlarmNetwork(steps[1], steps[0], widths))]
        if columns:
            reading.append(nn.Sequential(nn.Unflatten(1, (1, columns)), AlarmNetwork(columns, 1, widths)))
        self.members = nn.ModuleList(reading)
        self.register_buffer("share", torch.tensor(0.5 if columns else 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted sum of their logits, (n,), high = anomalous; in training each, (members, n)."""
        parts = torch.split(x, self.sizes, dim=1)
        if self.training:
            return torch.stack([member(part) for member, part in zip(self.members, parts, strict=False)])
        share = float(self.share)
        logit = x.new_zeros(len(x))
        for member, part, counts in zip(self.members, parts, (share, 1 - share), strict=False):
            if counts:  # what counts for nothing is not worked out
                logit = logit + counts * member(part)
        return logit


class Dropout(nn.Module):
    """Drops values in training like ``nn.Dropout``, whose random numbers take four times longer on a CPU.

    Parameters
    ----------
    share : float
        Share of the values to drop, 0 or more and less than 1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"dropout={share!r}, wanted a share of 0 or more and less than 1: dropout=0.4")
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Return x with a share of its values set to zero and the others scaled up, in training."""
        if not self.training or self.share == 0:
            return x
        kept = torch.rand_like(x) >= self.share
        return x * kept.to(x.dtype).div_(1 - self.share)


def _start_lstm_as_keras(lstm: nn.Module) -> None:
    weights = dict(lstm.named_parameters())
    nn.init.xavier_uniform_(weights["weight_ih_l0"])  # one draw for all gates, as in Keras
    nn.init.orthogonal_(weights["weight_hh_l0"])
    bias = nn.init.zeros_(weights["bias_ih_l0"])
    with torch.no_grad():
        bias.view(4, -1)[1] = 1  # gates are in the order input, forget, cell, output
    nn.init.zeros_(weights["bias_hh_l0"]).requires_grad_(False)
