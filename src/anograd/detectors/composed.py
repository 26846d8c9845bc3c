"""Target, representation and score, chosen one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import nn

from anograd.detectors import checks
from anograd.detectors.gradient import PostHocDetector
from anograd.detectors.paper import Paper
from anograd.detectors.rows import Missing
from anograd.features import KINDS
from anograd.score import LabelledNorms, LossAlone, Neighbours, NormDensity, ReferenceGap, ScoreTest, Subspace
from anograd.target import Target
from anograd.train import Observer

SCORES: dict[str, Callable[[int], nn.Module]] = {
    "density": NormDensity,
    "labelled": LabelledNorms,
    "loss": LossAlone,
    "neighbours": Neighbours,
    "score_test": ScoreTest,
    "subspace": Subspace,
}
READS = {"density": "norm", "labelled": "norm", "references": "cosine"}  # what each of these can read


class GradientDetector(PostHocDetector):
    """Scores rows by a score of your choice on a representation of your choice, high = anomalous.

    What the presets are made of, to be put together otherwise: the nearest neighbours of gradient lengths,
    the subspace of whole gradients, a score test of cosines.

    Parameters
    ----------
    representation : {"norm", "cosine", "sketch", "full"}, default "sketch"
        Of each parameter's gradient its length, its cosine with the mean of normal rows' (and with that of
        known anomalies, where there are any), a random projection, or all of it.
    scorer : {"density", "labelled", "loss", "neighbours", "references", "score_test", "subspace"}
        Default "neighbours". "density" and "labelled" read lengths, "references" cosines, the others any;
        "loss" is the loss itself, without any gradient.
    size : int, default 32
        Numbers kept of each parameter's gradient where it is sketched.
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

    See Also
    --------
    GradDensity, GradScoreTest, GradSubspace, GradNeighbours, GradReferences, GraN : The presets.
    GradientFeatures : The representation alone, for any estimator of scikit-learn's kind.

    Notes
    -----
    **Differs from the paper.** It follows none: the record names the survey of what the parts come from.

    References
    ----------
    Igoe et al.: How Useful are Gradients for OOD Detection, Really? 2022, arXiv:2205.10439, which asks what
    gradients add to what the forward pass shows; `twin_score` answers for each choice.

    Examples
    --------
    >>> import numpy as np
    >>> normal = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = GradientDetector(representation="norm", scorer="neighbours", epochs=5, random_state=0)
    >>> detector.fit(normal).detect([[0.0, 0.1, 0.2], [30.0, -30.0, 30.0]], alpha=0.05)
    array([False,  True])
    """

    learns_from_known: ClassVar[bool] = True
    paper: ClassVar[Paper] = Paper(
        title="How Useful are Gradients for OOD Detection, Really?",
        authors="Conor Igoe, Youngseog Chung, Ian Char, Jeff Schneider",
        venue="arXiv",
        year=2022,
        arxiv="2205.10439",
        differences=("it follows no paper: target, representation and score are put together by hand",),
        limits=("a combination that nobody has tried may do worse than reconstruction error",),
    )

    def __init__(
        self,
        *,
        representation: str = "sketch",
        scorer: str = "neighbours",
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
        self.representation = representation
        self.scorer = scorer
        self.size = size

    @property
    def needs_anomalies(self) -> bool:  # type: ignore[override]
        """Tell whether noise stands in for anomalies where none is known."""
        return self.scorer == "labelled"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        checks.one_of(self, "representation", KINDS)
        checks.one_of(self, "scorer", (*SCORES, "references"))
        checks.count(self, "size")
        wanted = READS.get(self.scorer, self.representation)
        if self.representation != wanted:
            raise ValueError(
                f"scorer={self.scorer!r} reads another representation than {self.representation!r}: "
                f"write representation={wanted!r}"
            )

    def _score(self, columns: int) -> nn.Module:
        if self.scorer == "references":
            return ReferenceGap(columns, anomalies=self.known_ > 0)
        return SCORES[self.scorer](columns)
