"""What of a row's gradient lies outside the subspace of normal rows' gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from anograd.detectors import checks
from anograd.detectors.gradient import PostHocDetector
from anograd.detectors.paper import Paper
from anograd.detectors.rows import Missing
from anograd.score import Subspace
from anograd.target import Target
from anograd.train import Observer


class GradSubspace(PostHocDetector):
    """Scores rows by how much of their gradient lies outside normal rows' subspace, high = anomalous.

    Gradients of normal rows, sketched, vary in few directions. The score is the log squared length
    of what is left of a row's gradient when those directions are taken away.

    Parameters
    ----------
    explained : float, default 0.95
        Share of the variance of normal rows' gradients that the subspace takes in.
    size : int, default 32
        Numbers kept of each parameter's gradient, by a random projection.
    target : {"auto", "cae", "vae", "dense"} or Target, default "auto"
    hidden : sequence of int, optional
    epochs : int, default 100
    patience : int or None, default 10
    batch_size : int, default 64
    learning_rate : float, default 1e-3
    validation : float, default 0.1
    calibration : float, default 0.2
    false_alarm_rate : float, default 0.05
    missing : {"refuse", "impute"}, default "refuse"
    memory : str or int, default "1GiB"
    device : str, default "auto"
    random_state : int, RandomState, Generator or None, default None
    progress : bool or callable, default False
    checkpoint : path, optional
        What has no text here is as in `GradDensity`.

    Notes
    -----
    **Differs from the papers.** GradPCA takes the principal components of class means of a
    classifier's gradients, GradOrth the directions of a layer's inputs; here there need be no classes, and
    the components are those of sketched gradients of all normal rows.

    References
    ----------
    GradPCA: Leveraging NTK Alignment for Reliable Out-of-Distribution Detection. ICLR 2026, arXiv:2505.16017.
    Behpour et al.: GradOrth: A Simple yet Efficient Out-of-Distribution Detection with Orthogonal Projection
    of Gradients. NeurIPS 2023, arXiv:2308.00310.

    Examples
    --------
    >>> import numpy as np
    >>> normal = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = GradSubspace(epochs=20, random_state=0).fit(normal)
    >>> detector.detect([[0.0, 0.1, 0.2], [30.0, -30.0, 30.0]], alpha=0.05)
    array([False,  True])
    """

    representation = "sketch"
    paper: ClassVar[Paper] = Paper(
        title="GradPCA: Leveraging NTK Alignment for Reliable Out-of-Distribution Detection",
        authors="Mariia Seleznova, Hung-Hsu Chou, Claudio Mayrink Verdun, Gitta Kutyniok",
        venue="ICLR",
        year=2026,
        arxiv="2505.16017",
        differences=(
            "components of sketched gradients of all normal rows instead of class means",
            "any network and loss instead of a classifier's",
        ),
        limits=(
            "what lies inside the subspace is not looked at, however far out",
            "known anomalies are left out of training, not learned from",
        ),
    )

    def __init__(
        self,
        *,
        explained: float = 0.95,
        size: int = 32,
        target: str | Target = "auto",
        hidden: Sequence[int] | None = None,
        epochs: int = 100,
        patience: int | None = 10,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        validation: float = 0.1,
        calibration: float = 0.2,
        false_alarm_rate: float = 0.05,
        missing: Missing = "refuse",
        memory: str | int = "1GiB",
        device: str = "auto",
        random_state: Any = None,
        progress: bool | Observer = False,
        checkpoint: Any = None,
    ) -> None:
        super().__init__(
            target=target, hidden=hidden, epochs=epochs, patience=patience, batch_size=batch_size,
            learning_rate=learning_rate, validation=validation, calibration=calibration,
            false_alarm_rate=false_alarm_rate, missing=missing, memory=memory, device=device,
            random_state=random_state, progress=progress, checkpoint=checkpoint,
        )  # fmt: skip
        self.explained = explained
        self.size = size

    def _check_parameters(self) -> None:
        super()._check_parameters()
        checks.share(self, "explained")
        checks.count(self, "size")

    def _score(self, columns: int) -> nn.Module:
        return Subspace(columns, explained=self.explained)
