"""Detectors composed of a network, a representation of its gradients, and a score of that."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from anograd.activations import activations
from anograd.alarm import noise
from anograd.checkpoint import digest
from anograd.constraint import mean_gradient
from anograd.detectors import checks
from anograd.detectors.base import Floats
from anograd.detectors.network import NARROW, PLANNED, NetworkDetector, in_words
from anograd.detectors.parts import LOSS, Parts, joined, of_layers
from anograd.detectors.precise import at_home
from anograd.detectors.progress import observer
from anograd.detectors.rows import Missing
from anograd.detectors.split import Split
from anograd.features import (
    Features,
    Reader,
    References,
    Samples,
    mean_activation,
    read_activations,
    read_gradients,
    within_memory,
)
from anograd.gradients import Sketch
from anograd.gradients.served import parse_memory
from anograd.score import LabelledNorms, NormDensity
from anograd.spill import Rows, in_turn
from anograd.target import Target
from anograd.train import Observer, TrainingPlan, seeded, train

MOST_ROWS = 20_000  # normal rows that a score learns from
NOISE_ROWS = 200  # that stand for anomalies where a score needs some and none is known
READ_AT_ONCE = 256
LOGARITHMIC = (NormDensity, LabelledNorms)


class PostHocDetector(NetworkDetector):
    """What detectors share that read a finished network: theirs or one handed in.

    A subclass says which `representation` of a row's gradient it reads, and makes the score that reads
    it. The same score, fed on what the forward pass alone shows at the same layers, is its twin.
    Parameters and attributes are documented with `GradDensity`, which adds none.
    """

    representation: str  # "norm", "cosine", "sketch" or "full"
    unit: bool = False  # whether each parameter's gradient is divided by its length
    size: int = 32  # numbers kept of each parameter's gradient, where it is sketched
    twin: ClassVar[str] = "the same score of the same layers' inputs"
    needs_anomalies: ClassVar[bool] = False  # whether noise stands in for anomalies where none is known

    score_: nn.Module
    twin_: nn.Module
    columns_: list[int]
    widths_: list[list[int]]
    shown_: list[str]  # layers whose inputs the twin reads
    known_: int
    sketch_: Sketch
    references_: References
    twin_references_: References
    history_: list[dict[str, float]]
    kept_epoch_: int

    def __init__(
        self,
        *,
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
        self.target = target
        self.hidden = hidden
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

    def _narrowest(self) -> int:
        return NARROW  # fewer units tell less by their gradients

    @abstractmethod
    def _score(self, columns: int) -> nn.Module:
        """Return a fresh score of features of so many columns, `known_` anomalies being known."""

    def _score_of(self, widths: Sequence[int]) -> nn.Module:
        """Return the same for features of so many columns of each layer."""
        return self._score(sum(widths))

    def _probing(self, target: Target) -> Target:
        """Return the target whose gradients are read: with another loss where a score asks for one."""
        return target

    def _check_parameters(self) -> None:
        super()._check_parameters()
        checks.count(self, "epochs")
        checks.count(self, "batch_size")
        checks.count(self, "patience", None)
        checks.learning_rate(self)
        parse_memory(self.memory)

    def twin_score(self, X: Any) -> Floats:
        """Return the score of the same rows without gradients, (n,), high = anomalous.

        The same score was fitted to the inputs of the same layers, represented in the same way, which a
        forward pass alone shows: what gradients add is the difference between `anomaly_score` and this.
        """
        check_is_fitted(self)
        return self._batched(lambda rows: self._scored(self.twin_, self._shown(rows)), self._encode(X))

    def features(self, X: Any) -> Floats:
        """Return what the score reads of each row, (n, 1 + k): its loss, and its gradient's features.

        Parameters
        ----------
        X : as for `fit`
        """
        check_is_fitted(self)

        def joined(rows: Tensor) -> Tensor:
            read = self._read(rows, self.score_)
            return torch.cat([read.loss.unsqueeze(1).to(read.values), read.values], dim=1)

        return self._batched(joined, self._encode(X))

    def feature_names(self) -> list[str]:
        """Return the names of the features but the loss, (k,), in order."""
        layers = self.target_.layers
        if self.representation == "norm":
            return [f"{name} norm" for name in layers]
        if self.representation == "cosine":
            whose = ("normal", "anomalous")[: len(self.references_)]
            return [f"{name} cosine {which}" for which in whose for name in layers]
        return [f"{self.representation} {i}" for i in range(self.columns_[0])]

    def _read(self, rows: Tensor, score: nn.Module | None = None) -> Features:
        """Return what a score reads of the gradients; the score, once fitted, says where it needs digits."""
        rows, sample = self._precise(rows), self._sampler()
        if isinstance(score, LOGARITHMIC) and self._is_steady():
            sample = partial(sample, unsure=score.unsure)
        return read_gradients(
            self.target_, rows, self.representation, unit=self.unit, references=self.references_,
            sketch=self.sketch_, memory=self.memory, sample=sample,
        )  # fmt: skip

    def _shown(self, rows: Tensor) -> Features:
        def read(some: Tensor) -> Features:
            return read_activations(
                self.target_, some, self.representation, unit=self.unit, references=self.twin_references_,
                sketch=self.sketch_, layers=self.shown_,
            )  # fmt: skip

        return within_memory(read, self.target_, self._precise(rows), self.memory)

    @torch.no_grad()
    def _scored(self, score: nn.Module, features: Features) -> Tensor:
        scores: Tensor = score(features)
        return scores

    def _score_batch(self, rows: Tensor) -> Tensor:
        return self._scored(self.score_, self._read(rows, self.score_))

    def _memory(self) -> int:
        return parse_memory(self.memory)

    def _learn(self, rows: Rows, split: Split, seed: int) -> None:
        known = rows.take(split.known if self.learns_from_known else split.known[:0])
        self.sketch_, self.known_ = Sketch(int(self.size), seed), len(known)
        if isinstance(self.target, Target):
            self._adopt(self.target, rows.take(split.train[:2]).to(self._device()))
            self.history_, self.kept_epoch_ = [], 0
        else:
            self._train(rows, split, seed)
        self._settle()
        train_rows, held = split.train[:MOST_ROWS], split.validation[:MOST_ROWS]
        if self.needs_anomalies and not len(known):
            seen = rows.take(train_rows[:1000])
            # Integers name something, such as words, and Gaussian ones name nothing: they are mixed instead.
            kind = "gaussian" if seen.is_floating_point() else "permuted"
            with seeded(seed), at_home():
                known = noise.make(kind, seen)(NOISE_ROWS).to(known.dtype)
            if kind == "gaussian" and self._raw_rows():
                known = noise.stretched(known, seen)
            self.known_ = len(known)
        device = self._device()
        normal = rows.take(train_rows[:1]).to(device)
        planned = self._precise(rows.take(train_rows[:PLANNED]).to(device))
        self._plan(planned)
        self.shown_ = list(activations(self.target_, planned)[1])
        self._refer(rows, train_rows, known)

        made, self.columns_, self.widths_ = [], [], []
        for read in (self._read, self._shown):
            one = read(normal)
            with in_words(self._raw_rows()):  # noise, too, may be no rows to it
                told = read(known.to(device)) if len(known) else _none(one)
            columns = one.values.shape[1]
            widths = list(one.widths) or [columns]
            with at_home():
                score = self._score_of(widths).to(device)
            score.fit(  # type: ignore[operator]
                Samples(self._pieces(read, rows, train_rows), self._pieces(read, rows, held), told)
            )
            made.append(score)
            self.columns_.append(columns)
            self.widths_.append(widths)
        self.score_, self.twin_ = made

    def _train(self, rows: Rows, split: Split, seed: int) -> None:
        device = self._device()
        x, held = rows.some(split.train, device), rows.some(split.validation, device)
        target, penalty = self._own(x, seed)
        plan = TrainingPlan(
            epochs=self.epochs, batch_size=int(self.batch_size), learning_rate=self.learning_rate,
            keep="reconstruction", patience=self.patience,
        )  # fmt: skip
        kept = (int(self.batch_size), self.learning_rate, self.patience)
        settings = [*kept, self.network_, seed, list(x.shape)]
        told = digest(settings, chain(in_turn(x, READ_AT_ONCE), in_turn(held, READ_AT_ONCE)))
        with observer(self.progress, self.epochs) as observe:
            trained = train(
                target, x, held, plan, penalty=penalty, seed=seed, observe=observe,
                checkpoint=self.checkpoint, fingerprint=told,
            )  # fmt: skip
        self.target_, self.history_, self.kept_epoch_ = target, trained.history, trained.kept_epoch
        self._check_alive(x)

    def _settle(self) -> None:
        """Choose the loss whose gradients are read, and the precision."""
        self.target_ = self._probing(self.target_)
        super()._settle()

    def _refer(self, rows: Rows, train_rows: Tensor, known: Tensor) -> None:
        """Take the mean gradients, and mean inputs, that cosines refer to."""
        self.references_, self.twin_references_ = (), ()
        if self.representation != "cosine":
            return
        device = self._device()
        groups = [rows.some(train_rows, device)]
        if len(known):
            groups.append(known.to(device))
        self.references_ = [mean_gradient(self.target_, one, READ_AT_ONCE) for one in groups]
        self.twin_references_ = [
            mean_activation(self.target_, map(self._precise, in_turn(one, READ_AT_ONCE)), self.shown_)
            for one in groups
        ]

    def _parts(self) -> Parts:
        layers = of_layers(self.target_, self.representation, self.sketch_, self.columns_[0])

        def read(rows: Tensor) -> Tensor:
            found = self._read(rows, self.score_)
            return torch.cat([found.loss.unsqueeze(1).double(), found.values.double()], dim=1)

        def score(values: Tensor) -> Tensor:
            return self._scored(self.score_, Features(values[:, 0], values[:, 1:]))

        return Parts(read, score, *joined([(torch.zeros(1, dtype=torch.int64), [LOSS]), layers]))

    def _pieces(self, read: Reader, rows: Rows, index: Tensor) -> Callable[[], Iterator[Features]]:
        device = self._device()
        return lambda: (read(rows.take(piece).to(device)) for piece in torch.split(index, READ_AT_ONCE))

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        tensors = self._weights()
        for group, module in (("score", self.score_), ("twin", self.twin_)):
            tensors |= {f"{group}/{name}": value for name, value in module.state_dict().items()}
        for group, references in (("reference", self.references_), ("twin_reference", self.twin_references_)):
            for i, one in enumerate(references):
                tensors |= {f"{group}{i}/{name}": value for name, value in one.items()}
        described = {
            "network": self.network_, "history": self.history_, "kept_epoch": self.kept_epoch_,
            "known": self.known_, "columns": self.columns_, "widths": self.widths_, "shown": self.shown_,
            "sketch": [self.sketch_.size, self.sketch_.seed],
        }  # fmt: skip
        return described, tensors

    def _restore(
        self, described: dict[str, Any], tensors: dict[str, dict[str, Tensor]], target: Target | None
    ) -> None:
        self.history_, self.kept_epoch_ = described["history"], described["kept_epoch"]
        self.known_, self.columns_ = described["known"], described["columns"]
        self.widths_, self.shown_ = described["widths"], described["shown"]
        self.sketch_ = Sketch(*described["sketch"])
        stored = sum(value.numel() for group in tensors.values() for value in group.values())
        if max(self.columns_) > stored:
            raise ValueError(f"{max(self.columns_):,} columns are described, and {stored:,} numbers stored")
        self._restore_network(described["network"], tensors["weights"], target)
        self._settle()
        for columns, widths in zip(self.columns_, self.widths_, strict=True):
            if sum(widths) != columns or min(widths) < 1 or len(widths) > len(self.target_.layers):
                raise ValueError(f"{columns:,} columns are described, and others of {len(widths):,} layers")
        device = self._device()
        for name, group, widths in zip(("score_", "twin_"), ("score", "twin"), self.widths_, strict=True):
            with torch.device("meta"):
                score = self._score_of(widths)
            _set_buffers(score, tensors.get(group, {}))
            setattr(self, name, score.to(device))
        for name, group in (("references_", "reference"), ("twin_references_", "twin_reference")):
            kept = (tensors.get(f"{group}{i}") for i in range(2))
            here = [{key: value.to(device) for key, value in one.items()} for one in kept if one]
            setattr(self, name, here)


def _set_buffers(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Set buffers whatever their shape was: how many rows a score keeps is known after its fit only."""
    if unlike := set(state) ^ set(module.state_dict()):
        raise ValueError(f"{type(module).__name__} and the stored score do not both have {', '.join(unlike)}")
    for path, value in state.items():
        owner, _, name = path.rpartition(".")
        setattr(module.get_submodule(owner), name, value)


def _none(features: Features) -> Features:
    return Features(features.loss[:0], features.values[:0])
