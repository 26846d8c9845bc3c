"""A logistic regression of gradient lengths, layer by layer."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from anograd.detectors.gradient import PostHocDetector
from anograd.detectors.paper import Paper
from anograd.score import LabelledNorms


class GraN(PostHocDetector):
    """Scores rows by a logistic regression of their gradient lengths and loss, high = anomalous.

    One length a parameter: few enough numbers to be weighed by a handful of known anomalies. Without
    any, noise stands in for them. Parameters and attributes are those of `GradDensity`.

    Notes
    -----
    **Differs from the paper.** GraN reads a classifier's gradients under the class that it predicts, which
    is ``target=Target.adopt(classifier, loss="predicted")``; its examples of the other kind are adversarial
    or misclassified. Here an autoencoder serves as well, lengths are the logarithms of squared
    Euclidean ones, and the loss joins them.

    References
    ----------
    Lust, Condurache: GraN: An Efficient Gradient-Norm Based Detector for Adversarial and Misclassified
    Examples. ESANN 2020, arXiv:2004.09179.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(200, 3)), rng.normal(6, 1, size=(5, 3))])
    >>> detector = GraN(epochs=5, random_state=0).fit(X, np.repeat([0, 1], [200, 5]))
    >>> detector.detect([[0.0, 0.1, 0.2], [7.0, 6.0, 7.0]], alpha=0.05)
    array([False,  True])
    """

    representation = "norm"
    needs_anomalies: ClassVar[bool] = True
    learns_from_known: ClassVar[bool] = True
    paper: ClassVar[Paper] = Paper(
        title="GraN: An Efficient Gradient-Norm Based Detector for Adversarial and Misclassified Examples",
        authors="Julia Lust, Alexandru Paul Condurache",
        venue="ESANN",
        year=2020,
        arxiv="2004.09179",
        differences=(
            "autoencoders as well as classifiers",
            "logarithms of squared lengths, and the loss beside them",
            "where no anomaly is known, Gaussian noise in the range of the rows stands in, or integers mixed "
            "between rows",
        ),
        limits=(
            "lengths alone are read, so where a gradient points goes unseen",
            "with few labels and anomalies hidden among the rows it ranked below an isolation forest",
        ),
    )

    def _score(self, columns: int) -> nn.Module:
        return LabelledNorms(columns)
