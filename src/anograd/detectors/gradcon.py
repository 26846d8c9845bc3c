"""GradCon: how well a row's decoder gradient points along the mean training gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, ClassVar, Self

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from anograd.checkpoint import digest
from anograd.constraint import mean_gradient
from anograd.detectors import checks
from anograd.detectors.base import Floats
from anograd.detectors.network import DECODER, PLANNED, NetworkDetector, Penalty
from anograd.detectors.paper import Paper
from anograd.detectors.parts import LOSS, Parts
from anograd.detectors.progress import observer
from anograd.detectors.rows import Missing
from anograd.detectors.split import Split
from anograd.gradients.served import parse_memory
from anograd.represent import cosine
from anograd.score import PUBLISHED_BETA, equal_spread, gradcon_score
from anograd.spill import Rows, Some, in_turn
from anograd.target import Target
from anograd.train import Observer, Trained, TrainingPlan, train

TOLD_AT_ONCE = 10_000  # rows, for the fingerprint
FEWEST_WEIGHED, MOST_WEIGHED = 50, 2000  # rows whose spread weighs the cosine


@dataclass(frozen=True)
class Task:
    """One network to be trained, and what with: rows to train on, rows to choose the epoch by."""

    target: Target
    penalty: Penalty | None
    rows: Tensor | Some
    validation: Tensor | Some
    plan: TrainingPlan
    seed: int


class GradCon(NetworkDetector):
    """Scores rows by reconstruction error and by how well their gradient aligns with training's, high = odd.

    An autoencoder learns normal rows under a constraint: the gradients of its decoder's kernels shall keep
    pointing along their running mean. A row it was not made for asks for another update, and the cosine
    between the two tells. The anomaly score is ``loss - beta * mean cosine``.

    For pictures of good parts only, or tables of normal rows. A network of one's own, already trained,
    is adopted as it is: ``GradCon(target=Target.adopt(net, layers="decoder.*.weight"))``.

    Parameters
    ----------
    target : {"auto", "cae", "vae", "dense"} or Target, default "auto"
        "cae" and "vae" for images, "dense" for tables; "auto" takes "cae" or "dense" by the rows' shape.
        A Target is used post hoc: never trained, only its mean gradient over the training rows is taken.
    hidden : sequence of int, optional
        Encoder widths of the dense autoencoder, code last. By default 64, 32 and half the columns, up to 16.
        A code of fewer than 8 units is linear: a ReLU often switches all of them off.
    alpha : float, default 0.03
        Weight of the gradient constraint in training; 0 trains a plain autoencoder.
    beta : float or "auto", default "auto"
        Weight of the mean cosine in the score. "auto" makes it spread as much over normal rows that were
        held out as the loss does, whatever the loss is and however long training was; where fewer than 50
        are held out to choose the epoch, training rows fill up. The paper's is 0.12.
    reference : {"total", "recon"}, default "total"
        Whose gradient is averaged into the reference: the whole training objective's, or the
        reconstruction loss's alone.
    averaging : {"cumulative", "ema", "final"}, default "cumulative"
        Mean over all steps of training; exponential moving average of them (0.99); or the finished network's
        mean gradient over the training rows.
    keep : {"objective", "reconstruction", "last"}, default "objective"
        The epoch whose weights and reference count: best validation objective, best validation
        reconstruction, or the last.
    start : {"mean", "drawn"}, default "mean"
        Where the output of a network for images begins: at the mean of the training images, or wherever the
        draw of its weights puts it, from where dark images often lead into all-black output for good.
    epochs : int, default 100
        At most so many passes over the training rows.
    patience : int or None, default 20
        Stop after so many epochs without improvement of what `keep` goes by; with "last" each one is.
    batch_size : int, default 64
    learning_rate : float, default 1e-3
        Of Adam.
    validation : float, default 0.1
        Share of the normal rows that chooses the epoch.
    calibration : float, default 0.2
        Share of the normal rows held out for p values, so that a false-alarm rate means what it says. With 0
        the validation rows serve, and p values come out slightly too small.
    false_alarm_rate : float, default 0.05
        Where `predict` draws the line.
    missing : {"refuse", "impute"}, default "refuse"
        What to do with NaN in tables.
    memory : str or int, default "1GiB"
        Rows of a LazyFrame that take more wait in a temporary file while the detector is fitted; a bound on
        what scoring takes, too.
    device : str, default "auto"
        "auto" takes a GPU where there is one.
    random_state : int, RandomState, Generator or None, default None
        One seed gives one result on one machine. No global generator is touched.
    progress : bool or callable, default False
        True shows a bar; a callable gets ``(event name, dict)``.
    checkpoint : path, optional
        A file written after each epoch, from which an interrupted fit goes on. `save` removes it, once
        the model is safe.

    Attributes
    ----------
    target_ : Target
        The network with its loss and the parameters whose gradients are read.
    reference_ : dict of str to torch.Tensor
        The mean training gradient of each of them.
    history_ : list of dict
        Losses of each epoch.
    kept_epoch_ : int
        The epoch whose weights count, from 1; 0 for an adopted network.
    beta_ : float
        The weight of the mean cosine.
    split_ : dict of str to int
        How many normal rows went to "train", "validation" and "calibration".
    calibration_ : Calibration
        Scores of the held-out normal rows, sorted.
    offset_ : float
        ``decision_function`` is ``score_samples - offset_``.

    See Also
    --------
    anograd.per_sample : The gradients beneath.

    Notes
    -----
    **Differs from the paper.** `as_published` gives the published settings; the defaults stop early, hold
    rows out for p values, train 100 epochs at most, let networks for images begin at the mean image, and
    weigh the cosine by its spread: the longer a network learns the smaller its loss, until a fixed weight
    leaves the loss no say. The published code wrote its "best" weights only every fifth epoch; here every
    improvement is kept, weights and reference together.

    References
    ----------
    Kwon, Prabhushankar, Temel, AlRegib: Backpropagated Gradient Representations for Anomaly Detection.
    ECCV 2020, arXiv:2007.09507.

    Examples
    --------
    >>> import numpy as np
    >>> normal = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = GradCon(epochs=5, random_state=0).fit(normal)
    >>> detector.detect([[0.0, 0.1, 0.2], [30.0, -30.0, 30.0]], alpha=0.05)
    array([False,  True])
    """

    history_: list[dict[str, float]]

    read: ClassVar[str] = DECODER
    paper: ClassVar[Paper] = Paper(
        title="Backpropagated Gradient Representations for Anomaly Detection",
        authors="Gukyeong Kwon, Mohit Prabhushankar, Dogancan Temel, Ghassan AlRegib",
        venue="ECCV",
        year=2020,
        arxiv="2007.09507",
        differences=(
            "at most 100 epochs with patience 20 instead of 1000 epochs",
            "a fifth of the normal rows is held out for p values",
            "the cosine is weighed by its spread over held-out normal rows instead of by 0.12",
            "networks for images begin at the mean image, which keeps them from all-black output",
            "every improvement is kept; the published code saved every fifth epoch",
            "dense autoencoders for tables and image sizes other than 28 x 28 are ours",
            "the VAE's KL term is divided by the number of pixels, to match a mean reconstruction loss",
        ),
        limits=(
            "from the published start the cosine needs tens of epochs to become useful",
            "on tables it ranks no better than the reconstruction error",
            "known anomalies are left out of training, not learned from",
        ),
    )

    def __init__(
        self,
        *,
        target: str | Target = "auto",
        hidden: Sequence[int] | None = None,
        alpha: float = 0.03,
        beta: float | str = "auto",
        reference: str = "total",
        averaging: str = "cumulative",
        keep: str = "objective",
        start: str = "mean",
        epochs: int = 100,
        patience: int | None = 20,
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
        self.target = target
        self.hidden = hidden
        self.alpha = alpha
        self.beta = beta
        self.reference = reference
        self.averaging = averaging
        self.keep = keep
        self.start = start
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation = validation
        self.calibration = calibration
        self.false_alarm_rate = false_alarm_rate
        self.missing = missing
        self.memory = memory
        self.device = device
        self.random_state = random_state
        self.progress = progress
        self.checkpoint = checkpoint

    @classmethod
    def as_published(cls, **changes: Any) -> Self:
        """Return a detector with the paper's settings, to the letter; `changes` override them by name.

        1000 epochs without early stopping, a tenth of the rows for validation, none held out: p values
        then refer to the validation rows.
        """
        published: dict[str, Any] = {
            "alpha": 0.03, "beta": PUBLISHED_BETA, "reference": "total", "averaging": "cumulative",
            "keep": "objective", "start": "drawn", "epochs": 1000, "patience": None, "batch_size": 64,
            "learning_rate": 1e-3, "validation": 0.1, "calibration": 0.0,
        }  # fmt: skip
        return cls(**{**published, **changes})

    def twin_score(self, X: Any) -> Floats:
        """Return the reconstruction error of each row, (n,), high = anomalous: the score without gradients.

        The forward-only twin: what the gradient adds is the difference between `anomaly_score` and this.
        """
        check_is_fitted(self)
        return self._batched(lambda rows: self._measure(rows, ("loss",))[0], self._encode(X))

    def alignment(self, X: Any) -> Floats:
        """Return the cosine of each row's gradient with the mean training gradient, (n, l), LOW = anomalous.

        One column a parameter, in the order of ``target_.layers``; values in -1..1.
        """
        check_is_fitted(self)
        return self._batched(lambda rows: self._measure(rows)[1], self._encode(X))

    def _measure(
        self, rows: Tensor, want: Sequence[str] = ("loss", "norm", "inner")
    ) -> tuple[Tensor, Tensor]:
        """Return the reconstruction errors (n,) and, where norm and inner are wanted, the cosines (n, l)."""
        found = self._sampler()(
            self.target_, self._precise(rows), want, reference=self.reference_, memory=self.memory
        )
        assert found.loss is not None
        return found.loss, cosine(found, self.reference_) if "inner" in want else rows.new_zeros(0)

    def _score_batch(self, rows: Tensor) -> Tensor:
        return gradcon_score(*self._measure(rows), self.beta_)

    def _parts(self) -> Parts:
        layers = self.target_.layers

        def read(rows: Tensor) -> Tensor:
            loss, cosines = self._measure(rows)
            return torch.cat([loss.unsqueeze(1), -self.beta_ / len(layers) * cosines], dim=1)

        return Parts(read, lambda values: values.sum(1), torch.arange(1 + len(layers)), (LOSS, *layers))

    def _check_parameters(self) -> None:
        super()._check_parameters()
        checks.weight(self, "beta", "auto")
        checks.one_of(self, "reference", ("total", "recon"))
        checks.one_of(self, "averaging", ("cumulative", "ema", "final"))
        checks.one_of(self, "keep", ("objective", "reconstruction", "last"))
        checks.one_of(self, "start", ("mean", "drawn"))
        checks.count(self, "epochs")
        checks.count(self, "batch_size")
        checks.count(self, "patience", None)
        checks.learning_rate(self)
        parse_memory(self.memory)

    def _learn(self, rows: Rows, split: Split, seed: int) -> None:
        if isinstance(self.target, Target):
            train_rows = rows.some(split.train, self._device())
            self._adopt(self.target, train_rows[:2])
            self._plan(train_rows[:PLANNED])
            self.reference_ = mean_gradient(self.target_, train_rows, int(self.batch_size))
            self.history_, self.kept_epoch_ = [], 0
            return
        task = self._task(rows, split, seed)
        with observer(self.progress, self.epochs) as observe:
            trained = train(
                task.target, task.rows, task.validation, task.plan, penalty=task.penalty, seed=seed,
                observe=observe, checkpoint=self.checkpoint, fingerprint=self._fingerprint(task),
            )  # fmt: skip
        self._take(task, trained)

    def _task(self, rows: Rows, split: Split, seed: int) -> Task:
        """Return what is to be trained, and on what; on the device."""
        device = self._device()
        train_rows, validation = rows.some(split.train, device), rows.some(split.validation, device)
        target, penalty = self._own(train_rows, seed)
        plan = TrainingPlan(
            epochs=self.epochs, batch_size=int(self.batch_size), learning_rate=self.learning_rate,
            alpha=self.alpha, reference=self.reference, averaging=self.averaging, keep=self.keep,
            patience=self.patience,
        )  # fmt: skip
        return Task(target, penalty, train_rows, validation, plan, seed)

    def _take(self, task: Task, trained: Trained) -> None:
        self.target_, self.reference_ = task.target, trained.reference
        self.history_, self.kept_epoch_ = trained.history, trained.kept_epoch
        self._check_alive(task.rows)

    def _settle(self) -> None:
        super()._settle()
        if self.dtype_ == torch.float64:
            self.reference_ = {name: one.double() for name, one in self.reference_.items()}

    def _end(self, rows: Rows, split: Split) -> Self:
        self._settle()
        self.beta_ = self._weight(rows, split) if self.beta == "auto" else float(self.beta)
        return super()._end(rows, split)

    def _weight(self, rows: Rows, split: Split) -> float:
        """Return the weight of the mean cosine, by validation rows, and training rows where those are few."""
        count = min(max(FEWEST_WEIGHED, len(split.validation)), MOST_WEIGHED)
        aside = bool(self.split_["validation"])  # else the training rows are both
        some = rows.take(torch.cat([split.validation, split.train if aside else split.train[:0]])[:count])

        def read(few: Tensor) -> Tensor:
            loss, cosines = self._measure(few)
            return torch.stack([loss, cosines.mean(1)], dim=1)

        return equal_spread(*torch.from_numpy(self._batched(read, [some])).unbind(1))

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        reference = {f"reference/{name}": value for name, value in self.reference_.items()}
        described = {"network": self.network_, "history": self.history_, "kept_epoch": self.kept_epoch_}
        described["beta"] = self.beta_
        return described, self._weights() | reference

    def _restore(
        self, described: dict[str, Any], tensors: dict[str, dict[str, Tensor]], target: Target | None
    ) -> None:
        self.history_, self.kept_epoch_ = described["history"], described["kept_epoch"]
        self.beta_ = float(described.get("beta", self.beta))  # early versions stored none
        self._restore_network(described["network"], tensors["weights"], target)
        device = self._device()
        self.reference_ = {name: tensors["reference"][name].to(device) for name in self.target_.layers}
        self._settle()

    def _fingerprint(self, task: Task) -> str:
        settings = asdict(task.plan) | {"epochs": None, "start": self.start}
        rows = chain(in_turn(task.rows, TOLD_AT_ONCE), in_turn(task.validation, TOLD_AT_ONCE))
        return digest([settings, self.network_, task.seed, list(task.rows.shape)], rows)
