"""The score test with the Fisher information: where a gradient points, and how large the loss is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from anograd.detectors import checks
from anograd.detectors.gradient import PostHocDetector
from anograd.detectors.network import DECODER
from anograd.detectors.paper import Paper
from anograd.detectors.parts import LOSS, Parts
from anograd.detectors.rows import Missing
from anograd.features import Features, Sampler, read_activations
from anograd.gradients import doubled, per_sample
from anograd.represent import SHORTEST
from anograd.score import BlockTest, ScoreTest
from anograd.target import Target
from anograd.train import Observer

ANSWERS = "head.bias"  # of a network that tells hidden columns: its gradient is how wrong each answer was


class GradScoreTest(PostHocDetector):
    """Scores rows by a score test on where their gradient points and by their loss, high = anomalous.

    A gradient counts in units of what normal rows' gradients are like: (g - m)' (F + ridge)^-1 (g - m) with
    their mean m and covariance F, the Fisher information. Each parameter's gradient is divided by its length
    first, which the loss tells already. The statistic and the loss become surprises (1 - log of a smooth p
    value), and the two are added, which is Fisher's method.

    Parameters
    ----------
    fisher : {"diagonal", "projected", "blocks"}, default "diagonal"
        Of all gradient entries, the diagonal of F; or all of F of a random projection of them; or of such a
        projection each parameter's block of F, which gives a statistic, and a surprise, of its own.
    direction : bool, default True
        Divide each parameter's gradient by its length; False takes gradients as they are.
    typicality : bool, default False
        Count a loss far below that of normal rows like one as far above it.
    ridge : float, default 1e-3
        Added to F, in units of its mean diagonal entry.
    size : int, default 32
        Numbers kept of each parameter's gradient where it is projected.
    layers : str or sequence of str, optional
        Which parameters are read of a network that is trained here, as names or patterns, such as
        "up.0.weight", its decoder's first; left out, all the decoder's kernels ("masked": "head.bias").
    inputs : bool, default False
        Add the same surprise of what these layers read, which the forward pass shows.
    target : {"auto", "cae", "vae", "dense", "rotations", "masked"} or Target, default "auto"
        "rotations": for images, a convolutional autoencoder beside a classifier that tells how an image was
        turned, "head.weight" being its last kernel. "masked": for tables, a network that tells hidden columns
        from the others, as `for_tables` takes it.
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
    **Differs from the paper.** Gradients are divided by their length and centred, and a low loss is no
    alarm: all three serve detection better on images (docs/benchmarks.md); `as_published` undoes the first
    and the last. Of a network that is trained here, only the decoder's kernels are read. A ridge is added; p
    values come from a smooth tail fitted to held-out rows, so that scores far outside are not tied; an
    autoencoder's reconstruction error takes the place of a generative model's negative log likelihood.

    References
    ----------
    Bergamin, Mattei, Havtorn, Senetaire, Schmutz, Maaløe, Hauberg, Frellsen: Model-agnostic
    out-of-distribution detection using combined statistical tests. AISTATS 2022, arXiv:2203.01097.

    Examples
    --------
    >>> import numpy as np
    >>> normal = np.random.default_rng(0).normal(size=(200, 3))
    >>> detector = GradScoreTest(epochs=5, random_state=0).fit(normal)
    >>> detector.detect([[0.0, 0.1, 0.2], [30.0, -30.0, 30.0]], alpha=0.05)
    array([False,  True])
    """

    kinds: ClassVar[tuple[str, ...]] = (*PostHocDetector.kinds, "rotations", "masked")
    paper: ClassVar[Paper] = Paper(
        title="Model-agnostic out-of-distribution detection using combined statistical tests",
        authors="Federico Bergamin, Pierre-Alexandre Mattei, Jakob D. Havtorn, Hugo Senetaire, Hugo Schmutz, "
        "Lars Maaløe, Søren Hauberg, Jes Frellsen",
        venue="AISTATS",
        year=2022,
        arxiv="2203.01097",
        differences=(
            "gradients are divided by their length and centred",
            "a low loss is no alarm",
            "of a network trained here, the decoder's kernels alone are read",
            "a ridge is added to the Fisher information",
            "p values have a smooth tail, so that far scores are not tied",
            "an autoencoder's reconstruction error in place of a negative log likelihood",
            "inputs=True adds a test of what the layers read",
            "target='rotations' adds tests of a classifier that tells how an image was turned",
            "target='masked' tests a network that tells hidden columns from the others",
        ),
        limits=(
            "the diagonal reads each row's whole gradient: for millions of weights take fisher='projected'",
            "known anomalies are left out of training, not learned from",
        ),
    )

    def __init__(
        self,
        *,
        fisher: str = "diagonal",
        direction: bool = True,
        typicality: bool = False,
        ridge: float = 1e-3,
        size: int = 32,
        layers: str | Sequence[str] | None = None,
        inputs: bool = False,
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
        self.fisher = fisher
        self.direction = direction
        self.typicality = typicality
        self.ridge = ridge
        self.size = size
        self.layers = layers
        self.inputs = inputs

    @classmethod
    def as_published(cls, **changes: Any) -> Self:
        """Return a detector with gradients as they are and typicality; `changes` override them by name."""
        published: dict[str, Any] = {"fisher": "diagonal", "direction": False, "typicality": True}
        return cls(**{**published, **changes})

    @classmethod
    def for_images(cls, **changes: Any) -> Self:
        """Return a detector for images, which ranks them better than the defaults; `changes` override it.

        All of F, of a projection of the first decoder kernel's gradient to 2,048 numbers, and the same of
        the kernel's inputs. With ``target="rotations"`` that of the classifier's last kernel, too: better
        for pictures of things that have an up and a down, with training five times as long and more.
        Chosen on Fashion-MNIST; docs/benchmarks.md has what both bring there and elsewhere.
        """
        chosen: dict[str, Any] = {
            "fisher": "blocks", "direction": False, "ridge": 1e-4, "size": 2048,
            "layers": ("up.0.weight", "head.weight"), "inputs": True,
        }  # fmt: skip
        return cls(**{**chosen, **changes})

    @classmethod
    def for_tables(cls, **changes: Any) -> Self:
        """Return a detector for tables whose columns hang together; `changes` override its settings.

        A network tells in which cell of its range each hidden column lies, from those that are shown; all of
        F is taken of the gradient at the last layer's bias, that is of how wrong each cell's probability was.
        Of some 10,000 rows of six columns that takes half a minute, of a hundred columns more.
        docs/benchmarks.md has where it ranks better than other detectors, and where it does not.
        """
        chosen: dict[str, Any] = {
            "target": "masked", "fisher": "projected", "direction": False, "size": 2048, "batch_size": 256,
        }  # fmt: skip
        return cls(**{**chosen, **changes})

    @property
    def read(self) -> str | Sequence[str]:  # type: ignore[override]
        """Tell which parameters are read of a network that is trained here."""
        if self.layers is not None:
            return self.layers
        return ANSWERS if self.target == "masked" else DECODER

    @property
    def unit(self) -> bool:  # type: ignore[override]
        """Tell whether each parameter's gradient is divided by its length."""
        return self.direction

    @property
    def representation(self) -> str:  # type: ignore[override]
        """Tell what is read of a row's gradient: all of it, or a sketch."""
        return "full" if self.fisher == "diagonal" else "sketch"

    def _check_parameters(self) -> None:
        super()._check_parameters()
        checks.one_of(self, "fisher", ("diagonal", "projected", "blocks"))
        checks.count(self, "size")
        checks.above_zero(self, "ridge", "0.001 suits most")
        if self.layers is not None and not _are_names(self.layers):
            raise TypeError(
                f"layers={self.layers!r} was given: write a name or pattern, such as 'up.0.weight', or some"
            )
        if self.layers is not None and isinstance(self.target, Target):
            raise ValueError(
                f"layers={self.layers!r} is for a network that is trained here; of one that is handed in say "
                f"it there: target=Target.adopt(net, layers={self.layers!r})"
            )

    def _score_batch(self, rows: Tensor) -> Tensor:
        if self.fisher == "diagonal":
            by_layer, loss = self._statistics(rows)
            scores = self._joined(by_layer.sum(1), loss)
        else:
            scores = super()._score_batch(rows)
        return scores + self._surprise_of_inputs(self._shown(rows).values) if self.inputs else scores

    def _sampler(self) -> Sampler:
        sample = super()._sampler()
        if not self._is_steady() or self.network_["kind"] != "vae":
            return sample
        # F divides by what hardly varies, as most of what a VAE's decoder passes on: rounding would count.
        return lambda target, x, *how, **more: per_sample(doubled(target), x.double(), *how, **more)

    def _shown(self, rows: Tensor) -> Features:
        whole = self.inputs or self.fisher != "diagonal"
        if not (whole and self._is_steady()):
            return super()._shown(rows)
        return self._shown_by(doubled(self.target_), rows.double())  # a small ridge weighs rounding, too

    def _shown_by(self, target: Target, rows: Tensor) -> Features:
        """Return what a copy of the network shows of rows, both in its precision."""
        return read_activations(
            target, rows, self.representation, unit=self.unit, sketch=self.sketch_, layers=self.shown_
        )

    @torch.no_grad()
    def _joined(self, statistic: Tensor, loss: Tensor) -> Tensor:
        return cast(ScoreTest, self.score_).join(statistic, loss)

    @torch.no_grad()
    def _surprise_of_inputs(self, values: Tensor) -> Tensor:
        return cast(ScoreTest | BlockTest, self.twin_).surprise(values)

    def _parts(self) -> Parts:
        of_gradient = self._parts_by_layer() if self.fisher == "diagonal" else super()._parts()
        if not self.inputs:
            return of_gradient
        first = len(of_gradient.groups)

        def read(rows: Tensor) -> Tensor:
            return torch.cat([of_gradient.read(rows), self._shown(rows).values.double()], dim=1)

        def score(values: Tensor) -> Tensor:
            return of_gradient.score(values[:, :first]) + self._surprise_of_inputs(values[:, first:])

        shown = torch.full((self.columns_[1],), len(of_gradient.names))
        return Parts(read, score, torch.cat([of_gradient.groups, shown]), (*of_gradient.names, "inputs"))

    def _parts_by_layer(self) -> Parts:
        layers = list(self.target_.layers)

        def read(rows: Tensor) -> Tensor:
            by_layer, loss = self._statistics(rows)
            return torch.cat([loss.unsqueeze(1).double(), by_layer], dim=1)

        def score(values: Tensor) -> Tensor:
            return self._joined(values[:, 1:].sum(1), values[:, 0])

        return Parts(read, score, torch.arange(1 + len(layers)), (LOSS, *layers))

    def _statistics(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return statistics with the diagonal of F, (n, l) float64, a column a parameter, and losses (n,)."""
        rows = self._precise(rows)
        return self._expanding(self._sampler())(rows) if self._expands() else self._compared(rows)

    def _expands(self) -> bool:
        """Tell whether squares and inner products say enough: no linear layer's gradient is built then."""
        pairs = any(parameter.is_complex() for parameter in self.target_.parameters().values())
        return self.dtype_ == torch.float64 and not pairs and not cast(ScoreTest, self.score_).cancels()

    def _expanding(self, sample: Sampler) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return the function from rows to their statistics and losses that finds them from these."""
        score = cast(ScoreTest, self.score_)
        shapes = self.target_.shapes()

        def named(entries: Tensor) -> dict[str, Tensor]:
            pieces = torch.split(entries, [shape.numel() for shape in shapes.values()])
            return {name: one.reshape(shapes[name]) for name, one in zip(shapes, pieces, strict=True)}

        weight, pull = named(score.precision), named(score.precision * score.mean)
        squares = named(score.precision * score.mean.square())
        fixed = torch.stack([one.sum() for one in squares.values()])

        def statistics(rows: Tensor) -> tuple[Tensor, Tensor]:
            found = sample(
                self.target_, rows, ("loss", "norm", "inner", "weighted"), weight=weight, reference=pull,
                memory=self.memory,
            )  # fmt: skip
            assert found.loss is not None
            assert found.norm is not None
            assert found.inner is not None
            assert found.weighted is not None
            lengths = found.norm.clamp_min(SHORTEST) if self.direction else fixed.new_ones(())
            return score.expanded(found.weighted, found.inner, lengths, fixed), found.loss

        return statistics

    def _compared(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Find them from built gradients, block by block: those of all rows are never held at once."""
        score = cast(ScoreTest, self.score_)
        sizes = [shape.numel() for shape in self.target_.shapes().values()]
        starts = dict(zip(self.target_.layers, accumulate(sizes, initial=0), strict=False))

        def fold(name: str, gradients: Tensor) -> Tensor:
            entries = slice(starts[name], starts[name] + gradients[0].numel())
            return score.part(gradients, entries, self.direction)

        found = self._sampler()(self.target_, rows, ("loss", "fold"), fold=fold, memory=self.memory)
        assert found.loss is not None
        assert found.fold is not None
        return found.fold.double(), found.loss

    def _score_of(self, widths: Sequence[int]) -> nn.Module:
        if self.fisher == "blocks":
            return BlockTest(widths, ridge=self.ridge, typicality=self.typicality)
        return super()._score_of(widths)

    def _score(self, columns: int) -> nn.Module:
        return ScoreTest(
            columns, projected=self.fisher == "projected", ridge=self.ridge,
            typicality=self.typicality,
        )  # fmt: skip


def _are_names(layers: Any) -> bool:
    if isinstance(layers, str):
        return True
    return isinstance(layers, Sequence) and bool(layers) and all(isinstance(one, str) for one in layers)
