"""The scikit-learn shell that every detector wears: fit, score, decide, save."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from platform import python_version
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from anograd._version import __version__
from anograd.batches import in_batches, naming_the_batch
from anograd.costs import Anomalies
from anograd.data import labels, number_of_rows, to_array
from anograd.decide import Calibration, check_scores
from anograd.detectors import checks, golden, saved
from anograd.detectors.checks import is_number
from anograd.detectors.explaining import explained, taken_apart
from anograd.detectors.paper import Paper
from anograd.detectors.parts import Parts
from anograd.detectors.precise import at_home, precise
from anograd.detectors.rows import Encoder, Missing, encode
from anograd.detectors.settings import Settled
from anograd.detectors.split import Split, drawn
from anograd.explain import Explanation
from anograd.gradients.served import parse_memory
from anograd.items import beyond
from anograd.ranks import together
from anograd.spill import Rows
from anograd.target import Target, undisturbed, usable
from anograd.train import Observer

SCORED_AT_ONCE, MOST_AT_ONCE = 512, 2048  # rows; the fewer numbers each has, the more keep the kernels busy
NUMBERS_AT_ONCE, MOST_NUMBERS = 2**17, 2**21  # of as many rows: so many are wanted, and no more are taken
MOST_USUAL = 512  # normal rows that tell what is usual
Floats = NDArray[np.float64]


class Detector(OutlierMixin, Settled, ABC):  # type: ignore[misc]
    """What all detectors share; a detector adds how it learns and how it scores a batch.

    Normal rows are split by the seed into rows to train on, rows to choose the epoch by
    (`validation`), and rows that are only scored (`calibration`), which p values refer to.
    """

    paper: ClassVar[Paper]
    learns_from_known: ClassVar[bool] = False  # whether known anomalies are more than left out
    twin: ClassVar[str] = "reconstruction error"  # what `twin_score` gives, for people

    # Declared for type checkers; set by `fit`.
    encoder_: Encoder
    calibration_: Calibration
    usual_: Tensor
    made_up_: Tensor
    n_features_in_: int
    split_: dict[str, int]
    fitted_by_: dict[str, str]  # when, and by which versions
    rank_: int = 0  # of those that trained the network together; 0 saves

    # Constructor parameters that the shell itself reads; subclasses store them. Where a subclass has them,
    # it reads two more: `memory`, a bound on the rows in RAM, and `checkpoint`, a file that `save` removes.
    validation: float
    calibration: float
    false_alarm_rate: float
    missing: Missing
    device: str
    random_state: Any
    progress: bool | Observer

    @abstractmethod
    def _learn(self, rows: Rows, split: Split, seed: int) -> None:
        """Fit network and statistics to encoded rows, on the device; set attributes that end in _."""

    @abstractmethod
    def twin_score(self, X: Any) -> Floats:
        """Return the forward-only quantity nearest to the score, (n,), high = anomalous.

        What gradients add is the difference between `anomaly_score` and this.

        Parameters
        ----------
        X : as for `fit`
        """

    @abstractmethod
    def _score_batch(self, rows: Tensor) -> Tensor:
        """Return the anomaly scores of encoded rows on the device, (n,), high = anomalous."""

    @abstractmethod
    def _parts(self) -> Parts:
        """Return the score taken apart."""

    def _expected(self, rows: Tensor) -> Tensor | None:
        """Return what encoded rows on the device would be if they were normal, None where nobody can tell."""
        return None

    @abstractmethod
    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what `_learn` found: plain data, and tensors named "group/name"."""

    @abstractmethod
    def _restore(
        self, described: dict[str, Any], tensors: dict[str, dict[str, Tensor]], target: Target | None
    ) -> None:
        """Set what `_learn` sets from plain data and tensors by group and name."""

    def _check_parameters(self) -> None:
        """Raise ValueError where a constructor parameter is out of range."""
        for name in ("validation", "calibration"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < 1:
                raise ValueError(f"{name}={value!r} is a share of the normal rows: 0 to below 1")
        if self.validation + self.calibration >= 1:
            raise ValueError(
                f"validation={self.validation} and calibration={self.calibration} leave no rows to train on: "
                f"their sum must be below 1"
            )
        if not is_number(self.false_alarm_rate) or not 0 < self.false_alarm_rate < 1:
            raise ValueError(f"false_alarm_rate={self.false_alarm_rate!r} must lie between 0 and 1")
        if self.missing not in ("refuse", "impute"):
            raise ValueError(f"missing={self.missing!r}: write missing='refuse' or missing='impute'")

    def _raw_rows(self) -> bool:
        """Tell whether rows go to the network as they are."""
        return False

    @undisturbed()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Return the detector itself, fitted to the normal rows of `X`.

        Parameters
        ----------
        X : array, tensor, data frame or Dataset, (n, p) or (n, C, H, W)
            Rows; normal ones are enough. A polars LazyFrame, and a Dataset of images, is read in pieces, so
            that it need not fit into memory.
        y : array of shape (n,), optional
            Known anomalies: 1 in the code 0 / 1, or -1 in the code +1 / -1 (read where a -1 occurs).

        Returns
        -------
        Self

        Raises
        ------
        ValueError
            With what was given, what is wanted and the line to change: NaN or infinity (row and
            column named), no or too few normal rows, unlike shapes, labels that are text or NaN.
        """
        rows, split, seed = self._begin(X, y)
        told = map(self.get_params(deep=False).get, ("batch_size", "checkpoint"))
        with at_home(unless=self._raw_rows()), naming_the_batch(*told):
            self._learn(rows, split, seed)
        return self._end(rows, split)

    def _begin(self, X: Any, y: Any) -> tuple[Rows, Split, int]:
        """Return the encoded rows, which of them does what, and the seed: what `_learn` asks for."""
        self._check_parameters()
        self._device()  # one that is not to be had is refused before the work
        raw = self._raw_rows()
        X = X if beyond(X, self._memory(), whole_numbers=not raw) else to_array(X)
        n = number_of_rows(X)
        if n < 2:
            raise ValueError(f"X has n_samples={n}: a detector learns from rows, at least 4 normal ones")
        seed = checks.seed(self.random_state)
        split = self._split(torch.from_numpy(labels(y, n)), seed)
        learned = split.learned(n)
        encoder, rows = encode(self, X, learned, raw=raw, missing=self.missing, memory=self._memory())
        self.__dict__.pop("fitted_by_", None)  # an earlier fit's network is not for this one's rows
        self.encoder_ = encoder
        self.rank_ = 0 if raw else together().rank
        return rows, split, seed

    def _end(self, rows: Rows, split: Split) -> Self:
        """Return the detector itself, which has learned, with what a verdict refers to."""
        self._settle_parameters()
        some = rows.take(split.validation[:MOST_USUAL])
        self.made_up_ = golden.made_up(self.encoder_.kind, some)
        self.usual_ = torch.from_numpy(self._batched(taken_apart(self).read, [some])).mean(0)
        held_out = (rows.take(batch) for batch in torch.split(split.calibration, self._at_once()))
        self._calibrate(self._batched(self._score_batch, held_out))
        self.fitted_by_ = {
            "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "anograd": __version__, "torch": str(torch.__version__), "python": python_version(),
        }  # fmt: skip
        return self

    def _split(self, known: Tensor, seed: int) -> Split:
        # An adopted network has no epoch to choose, so these rows are better spent on its mean gradient.
        chosen = not (self.calibration and self._raw_rows())
        self.split_, split = drawn(known, self.validation if chosen else 0.0, self.calibration, seed)
        return split

    def _memory(self) -> int:
        """Return how many bytes of encoded rows may stay in RAM: all, where a detector sets no bound."""
        memory = self.get_params(deep=False).get("memory")
        return sys.maxsize if memory is None else parse_memory(memory)

    def _calibrate(self, normal: Floats, known: Anomalies | None = None) -> None:
        self.calibration_ = Calibration(normal, known)

    @property
    def offset_(self) -> float:
        """What `decision_function` takes off, by `false_alarm_rate` and the calibration as they are."""
        smallest_level = 1 / (len(self.calibration_.scores) + 1)
        return -self.calibration_.threshold(max(self.false_alarm_rate, smallest_level))

    def calibrate(self, X: Any = None, *, anomalies: Any = None, prevalence: float | None = None) -> Self:
        """Return the detector itself with p values that refer to these normal rows; nothing is refitted.

        Parameters
        ----------
        X : as for `fit`, optional
            Normal rows that `fit` has not seen, such as last week's. Left out, p values stay as they are.
        anomalies : as for `fit`, optional
            Known anomalies that `fit` has not seen, at least 10: ``detect(X, costs=...)`` then knows what
            a line would miss. They stay when normal rows are given anew.
        prevalence : float, optional
            Share of anomalies among the rows to come; left out, their share among the rows given here.

        Raises
        ------
        ValueError
            Neither rows nor anomalies, too few anomalies, or no telling how common they are.
        """
        check_is_fitted(self)
        if X is None and anomalies is None:
            raise ValueError("nothing was given to calibrate with: calibrate(normal_rows)")
        odd = None if anomalies is None else self.anomaly_score(anomalies)
        if odd is not None and prevalence is None and X is None:
            raise ValueError(
                "anomalies alone do not tell how common they are: calibrate(anomalies=rows, prevalence=0.01)"
            )
        normal = self.calibration_.scores if X is None else self.anomaly_score(X)
        self.calibration_.check_new(normal, sum(self.split_.values()))
        known = self.calibration_.anomalies
        if odd is not None:
            known = Anomalies(odd, len(odd) / (len(odd) + len(normal)) if prevalence is None else prevalence)
        elif prevalence is not None:
            if known is None:
                raise ValueError("prevalence= says how common known anomalies are, and none were given")
            known = Anomalies(known.scores, prevalence)
        self._calibrate(normal, known)  # all at once: what is refused changes nothing
        self.split_ |= {} if X is None else {"calibration": len(normal)}
        return self

    def anomaly_score(self, X: Any) -> Floats:
        """Return the anomaly score of each row, (n,) float64, high = anomalous.

        A row's score does not depend on the other rows, their order or their number, but for the
        rounding of single precision.

        Parameters
        ----------
        X : as for `fit`
        """
        check_is_fitted(self)
        return check_scores(self._batched(self._score_batch, self._encode(X)), "scores")

    def p_values(self, X: Any) -> Floats:
        """Return conformal p values, (n,) in 0..1, low = anomalous.

        The share of held-out normal rows that score at least as high, the row itself counted in:
        (1 + number) / (m + 1). For a normal row it is at most alpha with probability at most alpha.

        Parameters
        ----------
        X : as for `fit`
        """
        scores = self.anomaly_score(X)
        return self.calibration_.p_values(scores)

    def detect(
        self,
        X: Any,
        *,
        alpha: float | None = None,
        fdr: float | None = None,
        budget: int | None = None,
        costs: tuple[float, float] | str | None = None,
    ) -> NDArray[np.bool_]:
        """Return which rows to raise an alarm for, (n,) bool, True = anomalous.

        At most one of the four ways; none means ``alpha=0.05``. All can be changed without a refit.

        Parameters
        ----------
        X : as for `fit`
        alpha : float, optional
            False-alarm rate: the share of normal rows that raise an alarm.
        fdr : float, optional
            False-discovery rate: the share of false ones among the alarms (Benjamini-Hochberg).
        budget : int, optional
            The number of rows there is time to look at: those with the highest scores.
        costs : pair of float or str, optional
            What a false alarm and a miss cost, ``(1, 50)`` or "1:50": the line that costs least on average.
            Wants known anomalies: ``calibrate(normal_rows, anomalies=odd_rows)``.
        """
        scores = self.anomaly_score(X)
        return self.calibration_.detect(scores, alpha=alpha, fdr=fdr, budget=budget, costs=costs)

    def explain(self, X: Any, *, normal: Any = None, patch: int | None = None) -> Explanation:
        """Return why each row scores as it does: what columns or pixels, the loss and each layer contribute.

        A part contributes what the score loses where the part is put right, by itself and last of all: its
        column or patch as a normal row would have it, its layer's gradient as it usually is.

        Parameters
        ----------
        X : as for `fit`
            Few rows, such as those that raised an alarm: each is scored twice for each column or patch.
        normal : as for `fit`, optional
            Normal rows, such as those of the fit. The nearest of them is what a row is put right by, in place
            of what the autoencoder makes of it, and those with the nearest gradients are named.
        patch : int, optional
            Side of the patches that images are cut into, in pixels: 4, or a 24th of the longer side.

        Raises
        ------
        ValueError
            Where the network does not reconstruct its input, and no normal rows were given.
        """
        check_is_fitted(self)
        return explained(self, X, normal, patch)

    def score_samples(self, X: Any) -> Floats:
        """Return the opposite of the anomaly score, (n,), LOW = anomalous: scikit-learn's direction."""
        return -self.anomaly_score(X)

    def decision_function(self, X: Any) -> Floats:
        """Return ``score_samples(X) - offset_``, (n,), below 0 = anomalous: scikit-learn's direction."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return -1 for rows that raise an alarm at `false_alarm_rate`, +1 for the rest, (n,).

        Where there are too few calibration rows for that rate, the smallest one they allow counts.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def fit_predict(self, X: Any, y: Any = None) -> NDArray[np.int64]:
        """Return what `predict` says of the rows that the detector is fitted to here, (n,); as in `fit`."""
        return self.fit(X, y).predict(X)

    def save(self, folder: str | Path) -> None:
        """Write the fitted detector to a folder: JSON, safetensors and skops, nothing that runs code.

        Parameters
        ----------
        folder : path
            A new folder, or an earlier model's, which is replaced only when all is written. Where torchrun
            started several processes, those beside the first one write nothing.
        """
        check_is_fitted(self)
        self._check_settled()
        if not self.rank_:
            saved.save(self, folder)

    def _encode(self, X: Any) -> Iterable[Tensor]:
        """Return encoded rows, in pieces where `X` need not fit into memory."""
        self._check_settled()
        return self.encoder_.pieces(self, X, self._memory())

    def _batched(self, function: Callable[[Tensor], Tensor], pieces: Iterable[Tensor]) -> Floats:
        """Return what a function gives for batches of rows on the device, (n, ...) float64."""
        device, size = self._device(), self._at_once()
        found = []
        for piece in pieces:
            with precise(device):
                values, size = in_batches(lambda rows: function(usable(rows.to(device))), piece, size)
            # The device is waited for once; not each has double precision.
            found.append(values.cpu().double().numpy())
        return np.concatenate(found)

    def _at_once(self) -> int:
        """Return how many rows are scored at once."""
        rows = (
            numbers // max(1, math.prod(self.encoder_.shape)) for numbers in (NUMBERS_AT_ONCE, MOST_NUMBERS)
        )
        wanted, most = (1 << (max(1, one).bit_length() - 1) for one in rows)
        return min(MOST_AT_ONCE, most, max(SCORED_AT_ONCE, wanted))

    def _device(self) -> torch.device:
        return checks.available(self.device)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.missing == "impute"
        return tags
