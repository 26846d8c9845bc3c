"""Gradient features for other estimators, and detectors put together by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.pipeline import make_pipeline
from torch import nn

from anograd import R2AD2, GradientDetector, GradientFeatures, Sketch, Target, load, per_sample


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(150, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(150, 6))).astype(
        "f4"
    )


def adopted(seed: int = 0) -> Target:
    torch.manual_seed(seed)
    return Target.adopt(nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 6)))


@pytest.mark.parametrize("kind", ["norm", "sketch", "full"])
def test_features_are_what_the_engine_gives(table: np.ndarray, kind: str) -> None:
    target = adopted()
    features = GradientFeatures(target, kind=kind, size=4, random_state=0).fit(table)
    sketch = Sketch(4, features.detectors_[0].sketch_.seed)
    found = per_sample(target, torch.from_numpy(table), ("loss", kind), sketch=sketch)
    expected = torch.cat([found.loss[:, None], getattr(found, kind)], 1).numpy()
    np.testing.assert_allclose(features.transform(table), expected, rtol=1e-6)
    without = GradientFeatures(target, kind=kind, size=4, loss=False, random_state=0).fit_transform(table)
    np.testing.assert_allclose(without, expected[:, 1:], rtol=1e-6)
    assert len(features.get_feature_names_out()) == expected.shape[1]


def test_names_say_what_a_feature_is(table: np.ndarray) -> None:
    y = np.zeros(150, dtype=int)
    y[:5] = 1
    cosines = GradientFeatures(adopted(), kind="cosine", random_state=0).fit(table, y)
    names = cosines.get_feature_names_out().tolist()
    assert names[:2] == ["loss", "0.weight cosine normal"]
    assert names[-1] == "2.bias cosine anomalous"
    assert cosines.transform(table).shape == (150, 9)
    assert np.abs(cosines.transform(table)[:, 1:]).max() <= 1 + 1e-6


def test_several_checkpoints_stand_side_by_side(table: np.ndarray) -> None:
    one, other = adopted(0), adopted(1)
    both = GradientFeatures([one, other], kind="norm", random_state=0).fit(table)
    alone = [GradientFeatures(t, kind="norm", random_state=0).fit_transform(table) for t in (one, other)]
    np.testing.assert_array_equal(both.transform(table), np.concatenate(alone, 1))
    assert both.get_feature_names_out()[5] == "checkpoint 2 loss"
    trajectory = R2AD2(epochs=1, random_state=0).fit(table).targets_
    read = GradientFeatures(trajectory, kind="norm", random_state=0).fit(table.astype(np.float64))
    assert read.transform(table).shape == (150, 3 * 13)
    with pytest.raises(ValueError, match="names no network"):
        GradientFeatures([]).fit(table)


def test_known_anomalies_do_not_train_the_network(table: np.ndarray) -> None:
    odd = table[:10] + 5
    X, y = np.concatenate([table, odd]), np.repeat([0, 1], [150, 10])
    with_labels = GradientFeatures(kind="norm", epochs=3, random_state=0).fit(X, y)
    assert sum(with_labels.detectors_[0].split_.values()) == 150
    trees = make_pipeline(with_labels, HistGradientBoostingClassifier(min_samples_leaf=2)).fit(X, y)
    assert trees.predict_proba(odd)[:, 1].min() > trees.predict_proba(table)[:, 1].mean()


def test_in_front_of_an_unsupervised_estimator(table: np.ndarray) -> None:
    frame = pd.DataFrame(table, columns=list("abcdef"))
    forest = make_pipeline(GradientFeatures(epochs=20, random_state=0), IsolationForest(random_state=0))
    odd = frame[["f", "e", "d", "c", "b", "a"]].set_axis(list("abcdef"), axis=1) * 3
    scores = forest.fit(frame).score_samples(frame)
    assert np.median(forest.score_samples(odd)) < np.quantile(scores, 0.05)


@pytest.mark.parametrize(
    ("representation", "scorer"),
    [
        ("norm", "density"), ("norm", "labelled"), ("norm", "neighbours"), ("norm", "subspace"),
        ("norm", "score_test"), ("cosine", "references"), ("cosine", "neighbours"), ("sketch", "score_test"),
        ("sketch", "subspace"), ("full", "neighbours"), ("full", "score_test"), ("norm", "loss"),
    ],
)  # fmt: skip
def test_parts_that_fit_together_find_what_is_far_out(
    table: np.ndarray, representation: str, scorer: str, tmp_path
) -> None:
    detector = GradientDetector(representation=representation, scorer=scorer, epochs=20, random_state=0)
    detector.fit(table)
    odd = table[:, ::-1] * 3
    usual, unusual = detector.anomaly_score(table), detector.anomaly_score(odd)
    if scorer != "references":  # a direction alone says less
        assert np.median(unusual) > np.quantile(usual, 0.9)
    detector.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").anomaly_score(odd), unusual)
    np.testing.assert_array_equal(load(tmp_path / "model").twin_score(odd), detector.twin_score(odd))


def test_parts_that_do_not_fit_are_refused(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"scorer='density' reads another.*write representation='norm'"):
        GradientDetector(representation="sketch", scorer="density").fit(table)
    with pytest.raises(ValueError, match=r"scorer='best' was given: write one of 'density'"):
        GradientDetector(scorer="best").fit(table)
    with pytest.raises(ValueError, match="representation='mean' was given"):
        GradientDetector(representation="mean").fit(table)


def test_the_loss_alone_is_reconstruction_error(table: np.ndarray) -> None:
    target = adopted()
    detector = GradientDetector(target=target, representation="norm", scorer="loss", random_state=0).fit(
        table
    )
    loss = per_sample(target, torch.from_numpy(table), ("loss",)).loss
    np.testing.assert_allclose(detector.anomaly_score(table), loss.numpy(), rtol=1e-6)
    np.testing.assert_allclose(detector.twin_score(table), detector.anomaly_score(table), rtol=1e-6)
