"""R2-AD2: alarm networks read a row's raw gradients at several checkpoints of an autoencoder's training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from anograd.alarm import AlarmPlan, BalancedPlan, BalancedScorer, Gradients, PublishedScorer, learners
from anograd.alarm import noise as noises
from anograd.checkpoint import Keeper
from anograd.detectors import checks
from anograd.detectors.base import Detector, Floats
from anograd.detectors.paper import Paper
from anograd.detectors.parts import Parts, of_checkpoints
from anograd.detectors.precise import finest
from anograd.detectors.progress import counting, observer
from anograd.detectors.published import PAPER, settings
from anograd.detectors.resume import keeper
from anograd.detectors.rows import Missing
from anograd.detectors.split import Split
from anograd.gradients import Sketch
from anograd.gradients.served import parse_memory
from anograd.represent import checkpoint_gradients, choose_sketch, entries
from anograd.spill import Rows
from anograd.target import Target, forward_pass
from anograd.train import Observer, seeded
from anograd.trajectory import TrajectoryPlan, build, describe, draw_holdout, train_checkpoints

KINDS = ("auto", "dense", "conv")
FAR = 1e30  # most of a gradient's entry in a fit: a cell of 1e24 in a known anomaly takes it out of float32
ALARM_ROWS = 100_000  # normal rows that the alarm networks learn from, at most
MOST_AT_ONCE = 2048  # rows scored at once; two threads are kept busy by no fewer
PLAIN = ("network", "shape", "history", "kept_epoch", "weights_tried", "known")  # attributes stored as JSON
NOISE_EXAMPLES = 10_000  # normal rows that permuted noise is made of, at most


class R2AD2(Detector):
    """Scores rows by what their gradients look like at several moments of training, high = anomalous.

    An autoencoder learns normal rows, and copies are kept along the way. A row's gradients at these
    checkpoints tell how each would have to change to take it in. Alarm networks, and trees on the row's
    columns, learn to tell known anomalies from normal rows; beside them stands the gradients' distance from
    normal ones, which needs no labels and speaks for kinds of anomalies that nobody has seen yet. The score
    is a weighted sum of surprises: how rare what each of them says would be among normal rows. For tables,
    or images, with a handful of labelled anomalies; it works without any.

    Parameters
    ----------
    target : {"auto", "dense", "conv"}, default "auto"
        Autoencoder for tables or for images; "auto" goes by the rows' shape.
    hidden : sequence of int, optional
        Encoder widths of the dense autoencoder, code last; (40, 20, 10) by default.
    dropout : float, default 0.2
        Of the autoencoder in training.
    checkpoints : int, default 3
        After 10 epochs of the autoencoder, then every 5.
    holdout : float, default 0.25
        Share of the training rows that only the alarm networks see.
    sketch : int, None or "auto", default "auto"
        Numbers kept of each parameter's gradient, by a random projection; None: raw gradients. "auto": 32,
        or raw where all of it is at most 256 numbers.
    training : {"balanced", "published"}, default "balanced"
        See Notes; "published" is one network with LSTMs, without what columns, trees and novelty say.
    recurrent : bool, default False
        Alarm networks read the checkpoints in order with LSTMs, or all at once with dense layers.
    widths : sequence of int, default (100, 50)
        Of each alarm network, the output aside.
    networks : int, default 4
        Alarm networks, each of which leaves out another part of the known anomalies; the mean counts.
    columns : bool, default True
        Beside each stands one that reads the row's columns themselves; False leaves gradients alone.
    trees : int or None, default 100
        Randomised trees that read the columns, as many for each network and so many at least; each has a
        small sample. They count four times as much as the networks, and alone on tables without known ones.
    noise : {"gaussian", "uniform", "permuted"} or None, default "gaussian"
        Rows that alarm networks are to call anomalous. None leaves out made-up rows for trees, too.
    novelty : float or "auto", default "auto"
        Weight of the distance. "auto" takes the largest that ranks left-out known anomalies nearly as well
        as the best, at most 1 a 50 known ones or 0.25; of none 0.5 beside trees, else 8 (4 for unlike ones).
    epochs : int, default 15
        Of the alarm networks; the last that ranks left-out known anomalies about best counts.
    batch_size : int or "auto", default "auto"
        "auto": about 50 steps an epoch, with 16 to 256 rows.
    learning_rate : float, default 1e-3
        Of Adam.
    validation : float, default 0.1
        Share of the normal rows that chooses the epoch and sets the scale of surprises.
    calibration : float, default 0.2
        Share of the normal rows held out for p values; with 0 the validation rows serve.
    false_alarm_rate : float, default 0.05
    missing : {"refuse", "impute"}, default "refuse"
    memory : str or int, default "256MiB"
        Rows and gradients beyond it wait in a file. What has no text here is as in `GradCon`.
    device : str, default "auto"
    random_state : int, RandomState, Generator or None, default None
    progress : bool or callable, default False
    checkpoint : path, optional
        A file written after each epoch, from which an interrupted fit goes on. `save` removes it.

    Attributes
    ----------
    targets_ : list of Target
        The checkpoints, the least trained first.
    scorer_ : torch.nn.Module
        From gradients, and columns, to scores.
    known_ : int
        Known anomalies learned from.
    holdout_ : ndarray of int64
        Rows of X that the autoencoder did not see in training, validation and calibration rows aside.
    history_ : list of dict
        Losses of each epoch of the alarm networks, and how left-out known anomalies were ranked.
    kept_epoch_ : int
        The epoch whose alarm networks count.
    weights_tried_ : list of dict
        How left-out known anomalies are ranked with each weight of the novelty and share of gradients.
    split_, calibration_, offset_
        As in `GradCon`.

    Notes
    -----
    **Differs from the paper.** `as_published` gives the published method: one recurrent alarm network on raw
    gradients, batch norm with an optimiser of its own, 100 epochs, noise in every step. The default
    standardises gradient entries on normal rows and takes their signed logarithm, sketches large gradients,
    draws a fifth of each batch from the known anomalies, keeps an early epoch, has networks and trees that
    read columns, and adds the novelty.

    References
    ----------
    Schulze, Sperl, Răduțoiu, Sagebiel, Böttinger: R2-AD2: Detecting Anomalies by Analysing the Raw Gradient.
    ECML PKDD 2022, arXiv:2206.10259.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(200, 3)), rng.normal(4, 1, size=(5, 3))])
    >>> y = np.repeat([0, 1], [200, 5])
    >>> detector = R2AD2(epochs=3, random_state=0).fit(X, y)
    >>> detector.detect([[0.0, 0.1, 0.2], [5.0, 4.0, 5.0]], alpha=0.05)
    array([False,  True])
    """

    learns_from_known: ClassVar[bool] = True
    paper: ClassVar[Paper] = PAPER

    targets_: list[Target]
    scorer_: nn.Module
    history_: list[dict[str, float]]
    weights_tried_: list[dict[str, float]]

    def __init__(
        self,
        *,
        target: str = "auto",
        hidden: Sequence[int] | None = None,
        dropout: float = 0.2,
        checkpoints: int = 3,
        holdout: float = 0.25,
        sketch: int | str | None = "auto",
        training: str = "balanced",
        recurrent: bool = False,
        widths: Sequence[int] = (100, 50),
        networks: int = 4,
        columns: bool = True,
        trees: int | None = 100,
        noise: str | None = "gaussian",
        novelty: float | str = "auto",
        epochs: int = 15,
        batch_size: int | str = "auto",
        learning_rate: float = 1e-3,
        validation: float = 0.1,
        calibration: float = 0.2,
        false_alarm_rate: float = 0.05,
        missing: Missing = "refuse",
        memory: str | int = "256MiB",
        device: str = "auto",
        random_state: Any = None,
        progress: bool | Observer = False,
        checkpoint: Any = None,
    ) -> None:
        self.target = target
        self.hidden = hidden
        self.dropout = dropout
        self.checkpoints = checkpoints
        self.holdout = holdout
        self.sketch = sketch
        self.training = training
        self.recurrent = recurrent
        self.widths = widths
        self.networks = networks
        self.columns = columns
        self.trees = trees
        self.noise = noise
        self.novelty = novelty
        self.epochs = epochs
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
    def as_published(cls, data: str | None = None, **changes: Any) -> Self:
        """Return a detector with the paper's settings, to the letter; `changes` override them by name.

        No rows are held out: p values refer to training rows; give ``calibration=0.2`` for verdicts.

        Parameters
        ----------
        data : str, optional
            One of the paper's data sets, such as "mammography", for its sizes; "nsl_kdd" by default.
        **changes
            Constructor parameters.
        """
        return cls(**{**settings(data), **changes})

    def _check_parameters(self) -> None:
        super()._check_parameters()
        checks.one_of(self, "target", KINDS)
        checks.one_of(self, "training", ("balanced", "published"))
        checks.one_of(self, "noise", (*noises.KINDS, None))
        for name in ("checkpoints", "networks", "epochs"):
            checks.count(self, name)
        for name, *words in (("sketch", "auto", None), ("trees", None), ("batch_size", "auto")):
            checks.count(self, name, *words)
        checks.share(self, "dropout")
        checks.share(self, "holdout")
        checks.learning_rate(self)
        checks.widths(self, "widths", "(100, 50)")
        if self.hidden is not None:
            checks.widths(self, "hidden", "(40, 20, 10), the code last")
        checks.weight(self, "novelty", "auto")
        parse_memory(self.memory)

    def twin_score(self, X: Any) -> Floats:
        """Return the reconstruction error of each row, (n,), high = anomalous: the score without gradients.

        The mean squared error of the last checkpoint; what gradients and labels add is the difference.
        """
        check_is_fitted(self)

        def error(rows: Tensor) -> Tensor:
            return (self._expected(rows) - self._precise(rows)).square().flatten(1).mean(1)

        return self._batched(error, self._encode(X))

    def novelty_score(self, X: Any) -> Floats:
        """Return the distance of each row's gradients from those of normal rows, (n,), high = anomalous."""
        check_is_fitted(self)
        scorer = self.scorer_
        if not isinstance(scorer, BalancedScorer):
            raise ValueError("training='published' has no novelty: fit with training='balanced'")
        return self._batched(lambda x: scorer.novelty(scorer.standard(self._entries_of(x))), self._encode(X))

    def _gradients_of(self, rows: Tensor) -> Tensor:
        return checkpoint_gradients(self.targets_, self._precise(rows), self.sketch_, self.memory)

    def _entries_of(self, rows: Tensor) -> Tensor:
        """Return what the scorer reads: gradients (n, T, k), or joined with the columns (n, T * k + p)."""
        gradients = self._gradients_of(rows)
        if self.training == "published":
            return gradients
        columns = [rows.flatten(1).to(gradients)] if self.columns else []
        return torch.cat([gradients.flatten(1), *columns], dim=1)

    def _at_once(self) -> int:
        # Gradients, features and what lies between, in double precision.
        one = 16 * 8 * self.shape_["checkpoints"] * self.shape_["entries"]
        return max(1, min(MOST_AT_ONCE, self._memory() // one))

    def _precise(self, rows: Tensor) -> Tensor:
        return rows.to(next(self.targets_[0].module.parameters()).dtype)

    @torch.no_grad()
    def _score_batch(self, rows: Tensor) -> Tensor:
        return self.scorer_(self._entries_of(rows))  # type: ignore[no-any-return]

    def _parts(self) -> Parts:
        gradients = (-1, self.shape_["checkpoints"], self.shape_["entries"])
        published = self.training == "published"
        score = torch.no_grad()(lambda values: self.scorer_(values.view(gradients) if published else values))
        groups = of_checkpoints(self.targets_[0], self.sketch_, self.shape_)
        return Parts(lambda rows: self._entries_of(rows).flatten(1), score, *groups)

    def _expected(self, rows: Tensor) -> Tensor:
        with forward_pass(self.targets_[-1]), torch.no_grad():
            return self.targets_[-1].module(self._precise(rows)).sigmoid()  # type: ignore[no-any-return]

    def _learn(self, rows: Rows, split: Split, seed: int) -> None:
        device = self._device()
        self.network_ = describe(self.target, rows.shape, self.hidden, self.dropout)
        target = build(self.network_, seed)
        target.module.to(device)
        published = self.training == "published"  # which has one network, whatever it is to learn from
        plan = TrajectoryPlan(self.checkpoints, self._batch(len(split.train)), self.learning_rate, published)
        seen, unseen = draw_holdout(split.train, self.holdout, seed)
        self.holdout_ = unseen.sort().values.numpy()
        self.known_ = known = len(split.known)
        most = (1, 0) if published else (self.networks, self.trees or 0 if self.columns else 0)
        self.shape_ = learners(known, *most, noise=self.noise is not None, table=len(rows.shape) == 1)
        total = plan.epochs() + (self.epochs if published or self.shape_["networks"] else 0)
        keep = keeper(self, self.network_, rows, split, seed)
        with observer(self.progress, total) as observe:
            if keep.epoch:
                observe("resumed", {"epoch": keep.epoch, "epochs": total})
            shown = counting(observe, 0, total, "autoencoder")
            self.targets_ = train_checkpoints(target, rows, seen, plan, seed=seed, observe=shown, keep=keep)
            self.sketch_ = choose_sketch(self.targets_[0], self.sketch, seed)
            size = entries(self.targets_[0], self.sketch_)
            self.shape_ |= {"checkpoints": len(self.targets_), "entries": size}
            self.shape_["columns"] = math.prod(rows.shape) if self.columns and not published else 0
            self.scorer_ = self._scorer(seed).to(device)
            gradients = self._gradients(rows, split)
            shown = counting(observe, plan.epochs(), total, "alarm network")
            self._train_scorer(gradients, seed, shown, keep)
        self._settle()

    def _settle(self) -> None:
        """Freeze what was learned, in double precision: a steep score would show how single rounds."""
        device = self._device()
        for module in (self.scorer_, *(target.module for target in self.targets_)):
            module.to(device, finest(device)).eval().requires_grad_(False)

    def _train_scorer(self, gradients: Gradients, seed: int, observe: Observer, keep: Keeper) -> None:
        batch = self._batch(len(gradients.train))
        if isinstance(self.scorer_, PublishedScorer):
            plan = AlarmPlan(self.epochs, batch, self.learning_rate)
            self.history_ = self.scorer_.learn(gradients, plan, seed=seed, observe=observe, keep=keep)
            self.kept_epoch_, self.weights_tried_ = self.epochs, []
            return
        assert isinstance(self.scorer_, BalancedScorer)
        weight = None if self.novelty == "auto" else float(self.novelty)
        own = BalancedPlan(self.epochs, batch, self.learning_rate)
        self.history_, self.kept_epoch_, self.weights_tried_ = self.scorer_.learn(
            gradients, own, weight=weight, seed=seed, observe=observe, keep=keep
        )
        self.shape_ |= self.scorer_.grown()

    def _gradients(self, rows: Rows, split: Split) -> Gradients:
        def read(index: Tensor) -> Tensor:
            return self._entries_of(rows.take(index).to(self._device())).clamp_(-FAR, FAR)

        train, validation = split.train[:ALARM_ROWS], split.validation
        if self.training == "published":  # which reads all rows, and has no use for validation
            train, validation = split.train, split.validation[:0]
        size = 4 * self.shape_["checkpoints"] * self.shape_["entries"] * len(train)
        # Raw gradients can be larger than any disk; sketches are small enough to be kept.
        memory = self._memory() if self.sketch_ is not None or size <= self._memory() else None
        kind = self.noise if self.shape_["networks"] else None
        draw = None if kind is None else noises.make(kind, rows.take(train[:NOISE_EXAMPLES]))
        noise = None if draw is None else lambda count: self._entries_of(draw(count).to(self._device()))
        return Gradients.gather(read, noise, train, validation, split.known, memory=memory)

    def _batch(self, n: int) -> int:
        return int(self.batch_size) if self.batch_size != "auto" else min(256, max(16, n // 50))

    def _scorer(self, seed: int) -> nn.Module:
        widths, shape = tuple(self.widths), self.shape_
        with seeded(seed):
            if self.training == "published":
                return PublishedScorer(shape["checkpoints"], shape["entries"], widths)
            return BalancedScorer(widths=widths, recurrent=self.recurrent, **shape)

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        tensors = {f"scorer/{name}": value for name, value in self.scorer_.state_dict().items()}
        for i, one in enumerate(target.module for target in self.targets_):
            tensors |= {f"checkpoint{i}/{name}": value for name, value in one.state_dict().items()}
        tensors["holdout/rows"] = torch.from_numpy(self.holdout_)
        described = {"sketch": [self.sketch_.size, self.sketch_.seed] if self.sketch_ is not None else None}
        described |= {name: getattr(self, f"{name}_") for name in PLAIN}
        return described, tensors

    def _restore(
        self, described: dict[str, Any], tensors: dict[str, dict[str, Tensor]], target: Target | None
    ) -> None:
        for name in PLAIN:
            setattr(self, f"{name}_", described[name])
        self.sketch_ = Sketch(*described["sketch"]) if described["sketch"] is not None else None
        self.holdout_ = tensors["holdout"]["rows"].numpy()
        widths = len(self.widths) + len(self.network_.get("hidden", ()))
        count = widths + self.shape_["checkpoints"] + self.shape_["networks"]
        checks.no_more_than(count, sum(map(len, tensors.values())))
        with torch.device("meta"):
            self.targets_ = [build(self.network_, seed=0) for _ in range(self.shape_["checkpoints"])]
            self.scorer_ = self._scorer(seed=0)
        for i, built in enumerate(self.targets_):
            built.module.load_state_dict(tensors[f"checkpoint{i}"], assign=True)
        self.scorer_.load_state_dict(tensors["scorer"], assign=True)
        self._settle()
