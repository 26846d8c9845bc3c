"""scikit-learn's own checks, all of them, with no expected failure."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from anograd import (
    R2AD2,
    GradCon,
    GradDensity,
    GradientDetector,
    GradientFeatures,
    GradLabels,
    GradNeighbours,
    GradNorm,
    GradReferences,
    GradScoreTest,
    GradSubspace,
    GraN,
)  # fmt: skip
from anograd.features import KINDS


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([GradCon(epochs=3), GradCon(target="dense", hidden=(6, 2), epochs=3)])
def test_gradcon(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        R2AD2(epochs=2, trees=8, sketch=16),
        R2AD2(checkpoints=1, sketch=8, recurrent=True, epochs=2, trees=8),
    ]
)
def test_r2ad2(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([R2AD2.as_published("mammography", epochs=2)])
def test_r2ad2_as_published(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        GradDensity(epochs=2), GradScoreTest(epochs=2), GradScoreTest(fisher="projected", epochs=2),
        GradScoreTest.for_images(epochs=2),
        GradScoreTest.for_tables(epochs=2, size=64),
        GradSubspace(epochs=2), GradNeighbours(epochs=2), GradReferences(epochs=2), GraN(epochs=2),
        GradNorm(epochs=2), GradLabels(epochs=2), GradLabels(labels="predicted", epochs=2),
        GradientDetector(epochs=2), GradientDetector(representation="full", scorer="subspace", epochs=2),
    ]
)  # fmt: skip
def test_gradient_scores(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([GradientFeatures(kind=kind, epochs=2, random_state=0) for kind in KINDS])
def test_gradient_features(estimator: Any, check: Any) -> None:
    check(estimator)
