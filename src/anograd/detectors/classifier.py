"""Scores of classifiers: what their gradients say under labels that nobody had to give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from anograd.activations import activations
from anograd.detectors import checks
from anograd.detectors.gradient import PostHocDetector
from anograd.detectors.network import Penalty, build
from anograd.detectors.paper import Paper
from anograd.detectors.rows import Missing
from anograd.features import Features
from anograd.losses import uniform
from anograd.score import LabelledNorms, NormDensity, UniformGradient
from anograd.spill import Rows, Some
from anograd.target import Target, forward_pass
from anograd.train import Observer

CLUSTERS = 10
MOST_CLUSTERED = 100_000  # rows
HIDDEN = (64, 32)
CHECKED = 64  # rows
ROUNDING = (1e-3, 1e-5)  # relative and absolute, between two ways to the same loss


class ClassifierDetector(PostHocDetector):
    """A detector that reads a classifier: one handed in, or one trained to tell clusters of normal rows."""

    kinds: ClassVar[tuple[str, ...]] = ("auto",)

    def _own(self, rows: Tensor | Some, seed: int) -> tuple[Target, Penalty | None]:
        from sklearn.cluster import KMeans  # a quarter of a second that every other command is spared

        flat = rows[:MOST_CLUSTERED].flatten(1).cpu()
        distinct = len(np.unique(flat.numpy(), axis=0))
        classes = max(2, min(CLUSTERS, distinct // 2))
        self.network_ = {
            "kind": "clusters", "features": flat.shape[1], "classes": classes,
            "hidden": [int(width) for width in (HIDDEN if self.hidden is None else self.hidden)],
        }  # fmt: skip
        target, penalty = build(self.network_, self.read, seed)
        centres = torch.zeros(classes, flat.shape[1])
        found = KMeans(min(classes, distinct), random_state=seed, n_init=3).fit(flat.numpy())
        centres[: len(found.cluster_centers_)] = torch.from_numpy(found.cluster_centers_)
        target.module.get_buffer("centres").copy_(centres)
        target.module.to(self._device())
        return target, penalty


class GradNorm(ClassifierDetector):
    """Scores rows by how short a classifier's last gradient under a uniform label is, high = anomalous.

    For a trained classifier that is to say which inputs it was not made for:
    ``GradNorm(target=Target.adopt(net, loss="uniform", layers="head.weight"))``, the last layer named. One
    forward pass, since the gradient's length is a product of two. Left to itself it trains a small
    classifier of the clusters that normal rows fall into. A layer whose output something follows, such as a
    temperature, is refused: `GradLabels` takes any. Parameters and attributes are those of
    `GradDensity`, with "auto" as the only network of its own.

    Notes
    -----
    **Differs from the paper** in its direction, high = anomalous, and in the classifier of clusters.
    The twin is the length of softmax - uniform alone: what the layer's input adds is the difference.

    References
    ----------
    Huang, Geng, Li: On the Importance of Gradients for Detecting Distributional Shifts in the Wild.
    NeurIPS 2021, arXiv:2110.00218.

    Examples
    --------
    >>> import numpy as np
    >>> normal = np.random.default_rng(0).normal(size=(200, 3))
    >>> GradNorm(epochs=5, random_state=0).fit(normal).anomaly_score(normal[:2]).shape
    (2,)
    """

    representation = "norm"
    twin: ClassVar[str] = "length of softmax - uniform"
    read: ClassVar[str] = "head.weight"
    paper: ClassVar[Paper] = Paper(
        title="On the Importance of Gradients for Detecting Distributional Shifts in the Wild",
        authors="Rui Huang, Andrew Geng, Yixuan Li",
        venue="NeurIPS",
        year=2021,
        arxiv="2110.00218",
        differences=(
            "high = anomalous",
            "without a classifier of yours, one of clusters is trained",
        ),
        limits=(
            "a row far outside can make long gradients and look normal, above all in tables: in the mean of "
            "16 it ranked at chance",
            "known anomalies are left out of training, not learned from",
        ),
    )

    def _probing(self, target: Target) -> Target:
        layer, _, own = target.layers[-1].rpartition(".")
        if type(target.module.get_submodule(layer)) is not nn.Linear or own != "weight":
            raise ValueError(
                f"GradNorm reads the weight of a classifier's last linear layer, but the last chosen "
                f"parameter is {target.layers[-1]!r}: "
                f"Target.adopt(net, loss='uniform', layers='name of that layer.weight')"
            )
        return Target.adopt(target.module, loss="uniform", layers=target.layers[-1])

    def _read(self, rows: Tensor, score: nn.Module | None = None) -> Features:
        loss, inputs, output = self._outputs(rows)
        return Features(loss, torch.stack([inputs.abs().sum(1), output], dim=1))

    def feature_names(self) -> list[str]:
        """Return the names of the features but the loss, (2,), in order."""
        return ["length of the last layer's inputs", "distance of softmax from uniform"]

    def _shown(self, rows: Tensor) -> Features:
        loss, _, output = self._outputs(rows)
        return Features(loss, torch.stack([torch.ones_like(output), output], dim=1))

    def _outputs(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses (n,), the last layer's inputs (n, m), and |softmax - uniform| (n,)."""
        loss, found = activations(self.target_, self._precise(rows))
        inputs = found[self.target_.layers[-1]]
        with forward_pass(self.target_), torch.no_grad():  # no other thread's hooks hear of it
            probabilities = self._last()(inputs).softmax(1)
        return loss, inputs, (probabilities - 1 / probabilities.shape[1]).abs().sum(1)

    def _last(self) -> nn.Linear:
        layer = self.target_.module.get_submodule(self.target_.layers[-1].rpartition(".")[0])
        assert isinstance(layer, nn.Linear)
        return layer

    def _refer(self, rows: Rows, train_rows: Tensor, known: Tensor) -> None:
        """Refuse a layer whose output, once a row, is not what the network returns."""
        super()._refer(rows, train_rows, known)
        some = rows.take(train_rows[:CHECKED]).to(self._device())
        loss, found = activations(self.target_, self._precise(some))
        name, layer, logits = self.target_.layers[-1], self._last(), None
        inputs = found[name]
        if inputs.shape[1] == layer.in_features:  # one position a row, one use
            with forward_pass(self.target_), torch.no_grad():
                logits = layer(inputs)
        if logits is None or not torch.allclose(uniform(logits, inputs), loss, *ROUNDING, equal_nan=True):
            raise ValueError(
                f"GradNorm takes what the layer of {name!r} puts out, once a row, for the network's output, "
                "but something follows it or stands beside it. Name the layer whose output the network "
                "returns, Target.adopt(net, layers='name of that layer.weight'); or let autograd find the "
                "gradient, GradLabels(target=..., labels='uniform')"
            )

    def _score(self, columns: int) -> nn.Module:
        return UniformGradient()


class GradLabels(ClassifierDetector):
    """Scores rows by a classifier's gradient lengths under a made-up label, high = anomalous.

    A label that fits no row asks every layer for a change, and another one where a row is of another kind:
    "confounding" says that the row belongs to all classes at once, "uniform" that all are equally
    likely, "predicted" that it is of the class which the classifier predicts. With known anomalies a
    logistic regression reads the lengths, without any their density over normal rows.

    Parameters
    ----------
    labels : {"confounding", "uniform", "predicted"}, default "confounding"
        Takes the place of the target's loss.
    target : "auto" or Target, default "auto"
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
    **Differs from the paper.** A logistic regression takes the place of a small network; without known
    anomalies a density does; without a classifier of yours, one of clusters is trained.

    References
    ----------
    Lee, Lehman, Prabhushankar, AlRegib: Probing the Purview of Neural Networks via Gradient Analysis.
    IEEE Access 2023, arXiv:2304.02834.

    Examples
    --------
    >>> import numpy as np
    >>> normal = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = GradLabels(epochs=5, random_state=0).fit(normal)
    >>> detector.detect([[0.0, 0.1, 0.2], [30.0, -30.0, 30.0]], alpha=0.05)
    array([False,  True])
    """

    representation = "norm"
    learns_from_known: ClassVar[bool] = True
    paper: ClassVar[Paper] = Paper(
        title="Probing the Purview of Neural Networks via Gradient Analysis",
        authors="Jinsol Lee, Charlie Lehman, Mohit Prabhushankar, Ghassan AlRegib",
        venue="IEEE Access",
        year=2023,
        arxiv="2304.02834",
        differences=(
            "a logistic regression in place of a two-layer network, and a density where nothing is known",
            "without a classifier of yours, one of clusters is trained",
        ),
        limits=("lengths alone are read, so where a gradient points goes unseen",),
    )

    def __init__(
        self,
        *,
        labels: str = "confounding",
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
        self.labels = labels

    def _check_parameters(self) -> None:
        super()._check_parameters()
        checks.one_of(self, "labels", ("confounding", "uniform", "predicted"))

    def _probing(self, target: Target) -> Target:
        return Target.adopt(target.module, loss=self.labels, layers=target.layers)

    def _score(self, columns: int) -> nn.Module:
        return LabelledNorms(columns) if self.known_ else NormDensity(columns)
