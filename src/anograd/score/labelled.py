"""A few labels on top of a few numbers a layer: a logistic regression of gradient lengths."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from anograd.features import Features, Samples
from anograd.gradients import PerSample
from anograd.score.density import LEAST, LEAST_SPREAD, least_squares, log_squares, moments, shorter

FAR = 1e3  # spreads: one known anomaly beyond, such as of a cell 1e20, would be all that the regression sees


class LabelledNorms(nn.Module):
    """The logit by which log gradient lengths and loss speak for an anomaly, high = anomalous.

    Parameters
    ----------
    parameters : int
        Columns l.

    Attributes
    ----------
    mean, spread : torch.Tensor, (l + 1,)
        Of the logarithms and the loss, over normal rows.
    floor : torch.Tensor, (l,)
        What a squared length counts as at least.
    weights : torch.Tensor, (l + 1,)
    bias : torch.Tensor, ()

    References
    ----------
    Lust, Condurache, "GraN: An Efficient Gradient-Norm Based Detector for Adversarial and Misclassified
    Examples", ESANN 2020, arXiv:2004.09179.
    """

    mean: Tensor
    spread: Tensor
    floor: Tensor
    weights: Tensor
    bias: Tensor

    def __init__(self, parameters: int) -> None:
        super().__init__()
        for name, start in (("mean", 0.0), ("spread", 1.0), ("weights", 0.0)):
            self.register_buffer(name, torch.full((parameters + 1,), start, dtype=torch.float64))
        self.register_buffer("floor", torch.zeros(parameters, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros((), dtype=torch.float64))

    def fit(self, samples: Samples) -> None:
        """Learn the weights from normal rows and known anomalies, both counted as equally frequent."""
        held = list(samples.held())
        self.floor = least_squares(torch.cat([piece.values for piece in held]))
        normal = torch.cat([self._numbers(piece) for piece in held])
        self.mean, self.spread = moments(normal)
        loss = normal[:, -1]
        # As much of the loss as of the squared lengths, whatever its units are.
        least = (LEAST_SPREAD * loss.abs().mean()).clamp_min(LEAST)
        self.spread[-1] = loss.std(correction=0).maximum(least)
        known = self._numbers(samples.known)
        rows = ((torch.cat([normal, known]) - self.mean) / self.spread).clamp(-FAR, FAR)
        labels = np.arange(len(rows)) >= len(normal)
        regression = LogisticRegression(class_weight="balanced", max_iter=1000)
        regression.fit(rows.cpu().numpy(), labels)
        self.weights = torch.from_numpy(regression.coef_[0]).to(self.mean)
        self.bias = torch.tensor(regression.intercept_[0], device="cpu").to(self.mean)

    def _numbers(self, features: Features) -> Tensor:
        lengths = log_squares(features.values, self.floor)
        return torch.cat([lengths, features.loss.double().unsqueeze(1)], dim=1)

    def unsure(self, found: PerSample) -> Tensor:
        """Return which rows' lengths want more digits than float32 has, (n,) bool."""
        return shorter(found.norm, self.mean[:-1])

    def forward(self, features: Features) -> Tensor:
        """Return the scores, (n,) float64, of losses and lengths (n, l)."""
        standard = (self._numbers(features) - self.mean) / self.spread
        # Not a product of matrix and vector, in which a row's rounding would depend on its place.
        return (standard * self.weights).sum(1) + self.bias
