"""Detectors of anograd as entrants, and boosted trees on gradient features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from anograd.bench.entrants import Entrant, Fit, Fitted, Floats, Known, Rows, Score
from anograd.bench.rivals.classical import catboost, probability
from anograd.bench.rivals.network import weights
from anograd.detectors import DETECTORS, R2AD2, Detector, GradCon, GradientDetector, GradientFeatures
from anograd.score import PUBLISHED_BETA

PLAIN = (
    "graddensity", "gradscoretest", "gradsubspace", "gradneighbours", "gradreferences", "gran", "gradnorm",
    "gradlabels",
)  # fmt: skip
ALL_ROWS = {"calibration": 0.0}  # no rows are held out for p values, which a benchmark does not ask for


class Bottleneck(GradientDetector):
    """For the loss alone: the code of 8 units that scores of gradients gain by would reproduce anomalies."""

    def _narrowest(self) -> int:
        return 1


def fitting(make: Callable[..., Any], read: Callable[[Any], dict[str, Score]], **own: Any) -> Fit:
    """Return the fit of a detector.

    Parameters
    ----------
    make : callable
        From parameters to a detector.
    read : function
        From the fitted detector to its scores.
    **own
        Parameters; a run file's settings override them.
    """

    def fit(X: Rows, y: Known, *, seed: int, **settings: Any) -> Fitted:
        detector = make(**{"random_state": seed, "device": "cpu", **own, **settings}).fit(X, y)
        return Fitted(read(detector), size(detector))

    return fit


def size(detector: Any) -> int:
    """Return how many numbers a detector's networks were trained to, those of checkpoints once."""
    if isinstance(detector, R2AD2):
        return weights(detector.targets_[0].module, detector.scorer_)
    return weights(detector.target_.module)


def with_twin(detector: Detector) -> dict[str, Score]:
    """Return the score and its forward-only twin."""
    return {"score": detector.anomaly_score, "twin": detector.twin_score}


def alone(detector: Detector) -> dict[str, Score]:
    """Return the score, which has no twin but itself."""
    return {"score": detector.anomaly_score}


def with_cosine(detector: GradCon) -> dict[str, Score]:
    """Return score and twin, how badly gradients align with training's, and both at the paper's weight."""

    def cosine(rows: Rows) -> Floats:
        found: Floats = -detector.alignment(rows).mean(1)
        return found

    def fixed(rows: Rows) -> Floats:
        return detector.twin_score(rows) + PUBLISHED_BETA * cosine(rows)

    scores = {**with_twin(detector), "cosine": cosine}
    return {**scores, f"weight {PUBLISHED_BETA}": fixed} if detector.beta == "auto" else scores


def with_novelty(detector: R2AD2) -> dict[str, Score]:
    """Return score and twin, and the gradients' distance from normal ones where there is one."""
    novelty = {"novelty": detector.novelty_score} if detector.training == "balanced" else {}
    return {**with_twin(detector), **novelty}


def _published(published_for: str | None = None, **settings: Any) -> R2AD2:
    return R2AD2.as_published(published_for, **settings)


def fit_trees(
    X: Rows, y: Known, *, seed: int, trees: dict[str, Any] | None = None, **settings: Any
) -> Fitted:
    """Return the score of CatBoost on a row's columns and the features of its gradient.

    Parameters
    ----------
    X : ndarray of float32, (n, ...)
    y : ndarray of int8, (n,)
    seed : int
    trees : dict, optional
        Parameters of ``CatBoostClassifier``.
    **settings
        Parameters of `anograd.GradientFeatures`.
    """
    own = {"kind": "sketch", "random_state": seed, "device": "cpu"}
    features = GradientFeatures(**{**own, **settings}).fit(X, y)

    def joined(rows: Rows) -> Any:
        return np.concatenate([rows.reshape(len(rows), -1), features.transform(rows)], axis=1)

    model = catboost(len(X), seed, **(trees or {})).fit(joined(X), y)
    return Fitted({"score": lambda rows: probability(model, joined(rows))}, size(features.detectors_[0]))


def _plain(name: str) -> Entrant:
    kind = DETECTORS[name]
    return Entrant(
        fitting(kind, with_twin, **ALL_ROWS),
        kind.__name__,
        "defaults, no rows held out for p values",
        known="used" if kind.learns_from_known else "ignored",
        rows="any",
        paper=kind.paper,
    )


ENTRANTS = {
    "gradcon": Entrant(
        fitting(GradCon, with_cosine, **ALL_ROWS),
        "GradCon",
        "defaults, no rows held out for p values",
        rows="any",
        paper=GradCon.paper,
    ),
    "gradcon-published": Entrant(
        fitting(GradCon.as_published, with_cosine),
        "GradCon, published",
        "the paper's: 1000 epochs without early stopping",
        rows="any",
        paper=GradCon.paper,
    ),
    "r2ad2": Entrant(
        fitting(R2AD2, with_novelty), "R2AD2", "defaults", known="used", rows="any", paper=R2AD2.paper
    ),
    "r2ad2-published": Entrant(
        fitting(_published, with_novelty),
        "R2AD2, published",
        "the paper's, with its sizes for the data set that published_for names, else those for NSL-KDD",
        known="used",
        rows="any",
        paper=R2AD2.paper,
    ),
    **{name: _plain(name) for name in PLAIN},
    "reconstruction": Entrant(
        fitting(Bottleneck, alone, scorer="loss", **ALL_ROWS),
        "reconstruction error",
        "the loss alone of GradCon's autoencoder trained plainly, no rows held out for p values",
        rows="any",
    ),
    "gradient-trees": Entrant(
        fit_trees,
        "CatBoost on columns and gradients",
        "GradientFeatures' sketches and CatBoost, both with defaults",
        known="needed",
        rows="any",
        needs="catboost",
    ),
}
