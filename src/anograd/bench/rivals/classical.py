"""Forests, boosted trees, densities and neighbours: scikit-learn's, and CatBoost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.neighbors import KernelDensity, LocalOutlierFactor, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from anograd.bench.entrants import Entrant, Fit, Fitted, Floats, Known, Rows

Make = Callable[..., Any]
Read = Callable[[Any, Rows], Floats]
NEIGHBOURS = 20  # scikit-learn's own number for the local outlier factor


def fitting(make: Make, read: Read) -> Fit:
    """Return the fit of an estimator.

    Parameters
    ----------
    make : function
        From the number of rows, a seed and a run file's settings to an estimator.
    read : function
        From the fitted estimator and rows to scores, high = anomalous.
    """

    def fit(X: Rows, y: Known, *, seed: int, **settings: Any) -> Fitted:
        fitted = make(len(X), seed, **settings).fit(X, y)
        return Fitted({"score": lambda rows: np.asarray(read(fitted, rows), dtype=np.float64)})

    return fit


def probability(estimator: Any, rows: Rows) -> Floats:
    """Return the probability of the class of anomalies, (n,)."""
    chance: Floats = estimator.predict_proba(rows)[:, 1]
    return chance


def oddness(estimator: Any, rows: Rows) -> Floats:
    """Return the opposite of what scikit-learn's detectors and densities give, (n,)."""
    negated: Floats = -estimator.score_samples(rows)
    return negated


def farthest(neighbours: Any, rows: Rows) -> Floats:
    """Return the distance to the last of the nearest neighbours, (n,)."""
    distance: Floats = neighbours.kneighbors(rows)[0][:, -1]
    return distance


def left_over(components: Any, rows: Rows) -> Floats:
    """Return the mean squared part of each row that the components do not show, (n,)."""
    error: Floats = np.square(rows - components.inverse_transform(components.transform(rows))).mean(1)
    return error


def catboost(n: int, seed: int, **settings: Any) -> Any:
    """Return CatBoost's classifier with its defaults, on one thread, silent, writing no files.

    Parameters
    ----------
    n : int
        Rows to learn from.
    seed : int
    **settings
        Parameters of ``CatBoostClassifier``.
    """
    from catboost import CatBoostClassifier

    own = {"random_seed": seed, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
    return CatBoostClassifier(**{**own, **settings})


def _forest(n: int, seed: int, **settings: Any) -> Any:
    return RandomForestClassifier(**{"n_estimators": 500, "random_state": seed, "n_jobs": 1, **settings})


def _boosting(n: int, seed: int, **settings: Any) -> Any:
    own = {"min_samples_leaf": 3, "class_weight": "balanced", "random_state": seed}
    return HistGradientBoostingClassifier(**{**own, **settings})


def _isolation(n: int, seed: int, **settings: Any) -> Any:
    return IsolationForest(**{"random_state": seed, "n_jobs": 1, **settings})


def _one_class(n: int, seed: int, **settings: Any) -> Any:
    machine = OneClassSVM(**settings)
    machine.random_state = seed  # its constructor takes none, and would ask NumPy's global generator
    return machine


def _density(n: int, seed: int, **settings: Any) -> Any:
    return make_pipeline(StandardScaler(), KernelDensity(**{"bandwidth": "scott", **settings}))


def _local(n: int, seed: int, **settings: Any) -> Any:
    own = {"n_neighbors": min(NEIGHBOURS, n - 1), "novelty": True, "n_jobs": 1}
    return LocalOutlierFactor(**{**own, **settings})


def _neighbours(n: int, seed: int, **settings: Any) -> Any:
    return NearestNeighbors(**{"n_neighbors": min(5, n), "n_jobs": 1, **settings})


def _components(n: int, seed: int, **settings: Any) -> Any:
    return PCA(**{"n_components": 0.9, "svd_solver": "full", "random_state": seed, **settings})


def _learning(make: Make, label: str, settings: str, needs: str | None = None) -> Entrant:
    return Entrant(fitting(make, probability), label, settings, known="needed", needs=needs)


def _blind(make: Make, read: Read, label: str, settings: str) -> Entrant:
    return Entrant(fitting(make, read), label, settings)


ENTRANTS = {
    "random-forest": _learning(_forest, "random forest", "500 trees, else scikit-learn's defaults"),
    "histogram-boosting": _learning(
        _boosting,
        "histogram boosting",
        "leaves of 3 rows or more and balanced classes, else scikit-learn's defaults",
    ),
    "catboost": _learning(catboost, "CatBoost", "its defaults", "catboost"),
    "isolation-forest": _blind(
        _isolation, oddness, "isolation forest", "scikit-learn's defaults: 100 trees of 256 rows"
    ),
    "one-class-svm": _blind(
        _one_class, oddness, "one-class SVM", "scikit-learn's defaults: nu 0.5, Gaussian kernel"
    ),
    "kde": _blind(
        _density, oddness, "kernel density", "Gaussian kernel, Scott's bandwidth, on standardised columns"
    ),
    "lof": _blind(_local, oddness, "LOF", "scikit-learn's defaults: 20 neighbours"),
    "knn": _blind(_neighbours, farthest, "k-NN", "distance to the fifth neighbour, as PyOD's default"),
    "pca": _blind(
        _components, left_over, "PCA", "squared error outside the components that hold 90 % of the variance"
    ),
}
