"""Gradient features for any estimator of scikit-learn's kind: forests, boosted trees, PyOD's detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from anograd.detectors.base import Floats
from anograd.detectors.composed import GradientDetector
from anograd.detectors.rows import Missing
from anograd.target import Target
from anograd.train import Observer


class GradientFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns rows into features of their gradients, (n, k) float64, for any estimator that comes after it.

    Parameters
    ----------
    target : {"auto", "cae", "vae", "dense"}, Target or sequence of Target, default "auto"
        An autoencoder trained on the rows that `y` does not mark, a network of one's own, or several
        checkpoints of one, such as ``R2AD2(...).fit(X).targets_``, whose features are joined.
    kind : {"norm", "cosine", "sketch", "full"}, default "sketch"
        Of each parameter's gradient its length, its cosine with the mean of normal rows' (and with that of
        marked rows, where there are any), a random projection, or all of it.
    size : int, default 32
        Numbers kept of each parameter's gradient where it is sketched.
    loss : bool, default True
        Whether each row's loss is a feature, too.
    hidden : sequence of int, optional
    epochs : int, default 100
    patience : int or None, default 10
    batch_size : int, default 64
    learning_rate : float, default 1e-3
    validation : float, default 0.1
    missing : {"refuse", "impute"}, default "refuse"
    memory : str or int, default "1GiB"
    device : str, default "auto"
    random_state : int, RandomState, Generator or None, default None
    progress : bool or callable, default False
        What has no text here is as in `GradDensity`.

    Attributes
    ----------
    detectors_ : list of GradientDetector
        What reads each checkpoint, fitted; their own score is the loss.

    See Also
    --------
    GradientDetector : Representation and score in one, with p values and verdicts.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from sklearn.pipeline import make_pipeline
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> forest = make_pipeline(GradientFeatures(kind="norm", epochs=3), IsolationForest(random_state=0))
    >>> forest.fit(X).score_samples(X).shape
    (100,)
    """

    detectors_: list[GradientDetector]

    def __init__(
        self,
        target: str | Target | Sequence[Target] = "auto",
        *,
        kind: str = "sketch",
        size: int = 32,
        loss: bool = True,
        hidden: Sequence[int] | None = None,
        epochs: int = 100,
        patience: int | None = 10,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        validation: float = 0.1,
        missing: Missing = "refuse",
        memory: str | int = "1GiB",
        device: str = "auto",
        random_state: Any = None,
        progress: bool | Observer = False,
    ) -> None:
        self.target = target
        self.kind = kind
        self.size = size
        self.loss = loss
        self.hidden = hidden
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation = validation
        self.missing = missing
        self.memory = memory
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:
        """Return the transformer itself, its network and references fitted to the normal rows of `X`.

        Parameters
        ----------
        X : array, tensor, data frame or Dataset, (n, p) or (n, C, H, W)
        y : array of shape (n,), optional
            Known anomalies: 1 in the code 0 / 1, or -1 in the code +1 / -1. Training leaves them out,
            so that labels which a later step of a pipeline needs can be handed over.

        Raises
        ------
        ValueError
            As `GradientDetector.fit`.
        """
        targets = [self.target] if isinstance(self.target, str | Target) else list(self.target)
        if not targets:
            raise ValueError("target=[] names no network: hand over one Target or more, or write 'auto'")
        self.detectors_ = [self._reader(target).fit(X, y) for target in targets]
        first = self.detectors_[0]
        self.n_features_in_ = first.n_features_in_
        self.__dict__.pop("feature_names_in_", None)  # of an earlier fit
        if hasattr(first, "feature_names_in_"):
            self.feature_names_in_ = first.feature_names_in_
        return self

    def _reader(self, target: str | Target) -> GradientDetector:
        return GradientDetector(
            target=target, representation=self.kind, scorer="loss", size=self.size, hidden=self.hidden,
            epochs=self.epochs, patience=self.patience, batch_size=self.batch_size,
            learning_rate=self.learning_rate, validation=self.validation, calibration=0.0,
            missing=self.missing, memory=self.memory, device=self.device, random_state=self.random_state,
            progress=self.progress,
        )  # fmt: skip

    def transform(self, X: Any) -> Floats:
        """Return the features, (n, k) float64: those of each checkpoint, the loss first where it is wanted.

        Parameters
        ----------
        X : as for `fit`
        """
        check_is_fitted(self)
        found = [detector.features(X) for detector in self.detectors_]
        return np.concatenate([one if self.loss else one[:, 1:] for one in found], axis=1)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the features, such as "loss", "up.0.weight norm" and "sketch 3".

        Parameters
        ----------
        input_features : ignored
        """
        check_is_fitted(self)
        names: list[str] = []
        for i, detector in enumerate(self.detectors_):
            own = ["loss", *detector.feature_names()] if self.loss else detector.feature_names()
            several = len(self.detectors_) > 1
            names += [f"checkpoint {i + 1} {name}" if several else name for name in own]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.missing == "impute"
        return tags
