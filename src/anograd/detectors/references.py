"""Whether a row's gradient points where normal rows' do, or where known anomalies' do."""

from __future__ import annotations

import warnings
from typing import ClassVar

from torch import Tensor, nn

from anograd.detectors.gradient import PostHocDetector
from anograd.detectors.paper import Paper
from anograd.score import ReferenceGap
from anograd.spill import Rows


class GradReferences(PostHocDetector):
    """Scores rows by which of two mean gradients theirs resembles, normal or anomalous, high = anomalous.

    The cosine of a row's gradient with the mean gradient of known anomalies, less that with the mean
    gradient of normal rows, over the parameters in which the two kinds lie apart. Nothing is trained on the
    labels but a mean, so a handful will do. Without any, only the normal reference counts, which ranks little
    better than chance, and a warning says so. Parameters and attributes are those of `GradDensity`.

    Notes
    -----
    **Differs from the paper.** GradSafe takes the loss of a language model's reply "Sure" and one
    reference, of unsafe prompts; here any loss and network serve, normal rows have a reference of their
    own, and whole parameters are chosen instead of rows and columns of them.

    References
    ----------
    Xie, Fang, Pi, Gong: GradSafe: Detecting Jailbreak Prompts for LLMs via Safety-Critical Gradient Analysis.
    ACL 2024, arXiv:2402.13494.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(200, 3)), rng.normal(6, 1, size=(5, 3))])
    >>> detector = GradReferences(epochs=5, random_state=0).fit(X, np.repeat([0, 1], [200, 5]))
    >>> detector.detect([[0.0, 0.1, 0.2], [7.0, 6.0, 7.0]], alpha=0.05)
    array([False,  True])
    """

    representation = "cosine"
    learns_from_known: ClassVar[bool] = True
    paper: ClassVar[Paper] = Paper(
        title="GradSafe: Detecting Jailbreak Prompts for LLMs via Safety-Critical Gradient Analysis",
        authors="Yueqi Xie, Minghong Fang, Renjie Pi, Neil Gong",
        venue="ACL",
        year=2024,
        arxiv="2402.13494",
        differences=(
            "a reference of normal rows beside that of anomalies",
            "any network and loss instead of a language model's reply",
            "whole parameters are chosen instead of rows and columns of them",
        ),
        limits=(
            "with ten labels it ranked below its forward-only twin on 15 of 16 tables",
            "anomalies of kinds that nobody has labelled may look like neither reference",
            "labelled anomalies on opposite sides of the normal rows cancel in their mean gradient",
            "one labelled anomaly far beyond all others, by a mistyped cell, is most of their mean gradient",
            "without known anomalies it is the cosine of GradCon without GradCon's training, which ranks "
            "little better than chance, on some tables worse",
        ),
    )

    def _refer(self, rows: Rows, train_rows: Tensor, known: Tensor) -> None:
        if not len(known):
            warnings.warn(
                "no anomaly is known, and the cosine with normal rows' mean gradient alone ranks little "
                "better than chance: fit(X, y) with some known ones, or take GradCon, GradDensity or "
                "GradScoreTest",
                stacklevel=5,
            )
        super()._refer(rows, train_rows, known)

    def _score(self, columns: int) -> nn.Module:
        return ReferenceGap(columns, anomalies=self.known_ > 0)
