"""How far a row's gradient lies from the nearest ones of normal rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from anograd.detectors import checks
from anograd.detectors.gradient import PostHocDetector
from anograd.detectors.paper import Paper
from anograd.detectors.rows import Missing
from anograd.score import Neighbours
from anograd.target import Target
from anograd.train import Observer


class GradNeighbours(PostHocDetector):
    """Scores rows by the distance of their gradient from the nearest of normal rows, high = anomalous.

    Gradients are sketched, standardised over normal rows, and put on a signed logarithmic scale. The
    nearest rows also tell what a row resembles.

    Parameters
    ----------
    neighbours : int, default 5
        How many of the nearest count.
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
    **Differs from the paper.** TRAK attributes predictions to training rows by projected gradients; its
    space is searched here for neighbours. Entries are scaled one by one instead of by the
    inverse of their Gram matrix.

    References
    ----------
    Park, Georgiev, Ilyas, Leclerc, Madry: TRAK: Attributing Model Behavior at Scale. ICML 2023,
    arXiv:2303.14186.

    Examples
    --------
    >>> import numpy as np
    >>> normal = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = GradNeighbours(epochs=5, random_state=0).fit(normal)
    >>> detector.detect([[0.0, 0.1, 0.2], [30.0, -30.0, 30.0]], alpha=0.05)
    array([False,  True])
    """

    representation = "sketch"
    paper: ClassVar[Paper] = Paper(
        title="TRAK: Attributing Model Behavior at Scale",
        authors="Sung Min Park, Kristian Georgiev, Andrew Ilyas, Guillaume Leclerc, Aleksander Madry",
        venue="ICML",
        year=2023,
        arxiv="2303.14186",
        differences=(
            "projected gradients are searched for neighbours, not used to attribute predictions",
            "entries are scaled one by one, on a signed logarithmic scale",
        ),
        limits=(
            "at most 4,096 normal rows are kept to compare with",
            "known anomalies are left out of training, not learned from",
        ),
    )

    def __init__(
        self,
        *,
        neighbours: int = 5,
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
        self.neighbours = neighbours
        self.size = size

    def _check_parameters(self) -> None:
        super()._check_parameters()
        checks.count(self, "neighbours")
        checks.count(self, "size")

    def _score(self, columns: int) -> nn.Module:
        return Neighbours(columns, neighbours=int(self.neighbours))
