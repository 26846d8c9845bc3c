"""R2-AD2 as a user has it: real tables and images, few labels or none, wrong input, interrupted fits."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import roc_auc_score

import anograd as ag
from anograd import R2AD2
from anograd.detectors.published import SIZES
from anograd.spill import Rows

CANCER = load_breast_cancer()
BENIGN, MALIGNANT = CANCER.data[CANCER.target == 1], CANCER.data[CANCER.target == 0]
KNOWN = 10
DIGITS = load_digits()
IMAGES = (DIGITS.images / 16).astype(np.float32)[:, None]
SMALL = np.random.default_rng(0).normal(size=(60, 3))
LABELS = (np.arange(60) >= 55).astype(int)
FRAME = pd.DataFrame({"amount": SMALL[:, 0], "kind": np.tile(["a", "b", "c"], 20), "size": SMALL[:, 2]})


def quick(**parameters: Any) -> R2AD2:
    return R2AD2(**{"epochs": 2, "checkpoints": 2, "trees": 8, "random_state": 0, **parameters})


def tumours(seed: int = 0, known: int = KNOWN) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """250 benign rows and some known malignant ones; held-out rows of both kinds with the truth."""
    rng = np.random.default_rng(seed)
    normal, odd = rng.permutation(BENIGN), rng.permutation(MALIGNANT)
    X, y = np.concatenate([normal[:250], odd[:known]]), np.repeat([0, 1], [250, known])
    test = np.concatenate([normal[250:], odd[KNOWN:]])
    return X, y, test, np.repeat([0, 1], [len(normal) - 250, len(odd) - KNOWN])


@pytest.fixture(scope="module")
def fitted() -> R2AD2:
    X, y, *_ = tumours()
    return R2AD2(random_state=0).fit(X, y)


@pytest.fixture(scope="module")
def light() -> R2AD2:
    """A model of fewer trees and epochs, for what does not hang on how well it ranks."""
    X, y, *_ = tumours()
    return quick().fit(X, y)


@pytest.fixture(scope="module")
def of_images() -> R2AD2:
    return quick(random_state=1, epochs=5).fit(IMAGES[DIGITS.target == 0])


# What it is for.


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_tumours_with_ten_known_ones(seed: int) -> None:
    X, y, test, truth = tumours(seed)
    detector = R2AD2(random_state=seed).fit(X, y)
    assert roc_auc_score(truth, detector.anomaly_score(test)) > 0.96  # 0.979 to 0.984 were measured
    assert detector.detect(test, alpha=0.05)[truth == 0].mean() < 0.15
    assert truth[detector.detect(test, budget=50)].mean() > 0.9


@pytest.mark.parametrize("noise", ["gaussian", "uniform", "permuted", None])
@pytest.mark.parametrize("trees", [100, None])
def test_it_works_without_labels(noise: str | None, trees: int | None) -> None:
    """Trees learn from made-up rows; without them it is an alarm network that learns, from noise."""
    X, y, test, truth = tumours()
    seen: list[dict[str, Any]] = []
    detector = R2AD2(noise=noise, trees=trees, random_state=0, progress=lambda name, data: seen.append(data))
    detector.fit(X[y == 0])
    assert roc_auc_score(truth, detector.anomaly_score(test)) > 0.85  # 0.92 to 0.93 were measured
    learning = noise is not None and trees is None
    assert (len(detector.history_), detector.kept_epoch_) == ((15, 15) if learning else (0, 0))
    assert (detector.scorer_.forest is not None) == (noise is not None and trees is not None)
    assert len(detector.scorer_.alarms) == int(learning)
    assert seen[-1]["epoch"] == seen[-1]["epochs"] == 20 + 15 * learning
    assert detector.weights_tried_ == []


@pytest.mark.parametrize("cell", [1e24, 1e200])
def test_a_known_anomaly_may_have_a_cell_beyond_single_precision(cell: float) -> None:
    odd = MALIGNANT[:KNOWN].copy()
    odd[0, 3] = cell
    X, y = np.concatenate([BENIGN[:150], odd]), np.repeat([0, 1], [150, KNOWN])
    detector = R2AD2(epochs=3, networks=1, trees=50, random_state=0).fit(X, y)
    assert detector.anomaly_score(odd[:1])[0] > detector.anomaly_score(BENIGN[150:]).max()
    truth = np.repeat([0, 1], [len(BENIGN) - 150, len(MALIGNANT) - KNOWN])
    assert roc_auc_score(truth, detector.anomaly_score(np.r_[BENIGN[150:], MALIGNANT[KNOWN:]])) > 0.9


def test_images_without_labels_have_no_trees() -> None:
    """Anybody can tell made-up rows from images."""
    detector = quick(epochs=1, random_state=0).fit(IMAGES[:60])
    assert detector.scorer_.forest is None
    assert len(detector.scorer_.alarms) == 1
    known = quick(epochs=1, random_state=0).fit(IMAGES[:60], np.arange(60) >= 55)
    assert known.scorer_.forest is not None


def test_without_labels_and_noise_the_novelty_alone_ranks() -> None:
    X, y, test, _ = tumours()
    detector = R2AD2(noise=None, random_state=0).fit(X[y == 0])
    novelty, score = detector.novelty_score(test), detector.anomaly_score(test)
    assert (np.diff(score[np.argsort(novelty)]) >= 0).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_far_outliers_rank_high_without_labels(seed: int) -> None:
    """An alarm network may take either side far out, where it has seen nothing; the novelty outweighs it."""
    X, y, test, truth = tumours(seed)
    detector = R2AD2(trees=None, random_state=seed).fit(X[y == 0])
    normal = test[truth == 0]
    far = normal + 20 * X[y == 0].std(0)
    both, which = np.concatenate([normal, far]), np.repeat([0, 1], len(normal))
    assert roc_auc_score(which, detector.anomaly_score(both)) >= 0.98  # 1 was measured, for each seed
    assert roc_auc_score(which, detector.novelty_score(both)) >= 0.98
    assert detector.detect(far).all()
    assert float(detector.scorer_.weight) == 8
    grown = R2AD2(random_state=seed).fit(X[y == 0])  # trees, too, may take either side
    assert roc_auc_score(which, grown.anomaly_score(both)) >= 0.98
    assert grown.detect(far).all()
    assert float(grown.scorer_.weight) == 0.5


def test_one_known_anomaly_is_enough() -> None:
    X, y, test, truth = tumours(known=1)
    detector = R2AD2(random_state=0).fit(X, y)
    assert roc_auc_score(truth, detector.anomaly_score(test)) > 0.75
    assert len(detector.scorer_.alarms) == 1
    assert detector.weights_tried_ == []  # it is not spent on choosing
    assert float(detector.scorer_.weight) == 0.25
    alone = R2AD2(random_state=0).fit(X[:-1])
    assert np.abs(alone.anomaly_score(test) - detector.anomaly_score(test)).max() > 0.01


def test_one_network_learns_from_the_known() -> None:
    X, y, test, truth = tumours()
    detector = R2AD2(networks=1, novelty=0, random_state=0).fit(X, y)
    assert roc_auc_score(truth, detector.anomaly_score(test)) > 0.9


def test_known_anomalies_are_used(light: R2AD2) -> None:
    X, y, test, _ = tumours()
    others = np.concatenate([X[:250], test[-KNOWN:]])
    changed = clone(light).fit(others, y)
    assert np.abs(changed.anomaly_score(test) - light.anomaly_score(test)).max() > 0.01
    assert light.split_ == changed.split_ == {"train": 186, "validation": 25, "calibration": 39}
    signed = clone(light).fit(X, 1 - 2 * y)
    np.testing.assert_array_equal(signed.anomaly_score(test), light.anomaly_score(test))
    at_once = clone(light)
    np.testing.assert_array_equal(at_once.fit_predict(X, y), light.predict(X))
    assert at_once.known_ == KNOWN


def test_the_score_is_a_weighted_sum_of_surprises(fitted: R2AD2) -> None:
    test = torch.from_numpy(fitted.encoder_.table.transform(tumours()[2]))
    scorer, gradients = fitted.scorer_, fitted._gradients_of(test)
    features = scorer.standard(torch.cat([gradients.flatten(1), test.double()], dim=1))
    logits = torch.stack([alarm(features) for alarm in scorer.alarms]).mean(0)
    trees = scorer.forest_surprise(scorer.forest(test))
    learned = (4 * trees + scorer.alarm_surprise(logits)) / 5
    expected = learned + scorer.weight * scorer.novelty_surprise(scorer.novelty(features))
    np.testing.assert_allclose(fitted.anomaly_score(tumours()[2]), expected.numpy(), rtol=1e-9)
    weights = [one["weight"] for one in fitted.weights_tried_]
    assert float(scorer.weight) in weights
    fixed = clone(fitted).set_params(novelty=0.7, epochs=1).fit(*tumours()[:2])
    assert float(fixed.scorer_.weight) == 0.7


def test_a_given_weight_leaves_the_share_of_gradients_to_the_known() -> None:
    X, y, _, _ = tumours()
    detector = R2AD2(novelty=0.25, trees=None, random_state=0).fit(X, y)
    tried = [one for one in detector.weights_tried_ if one["weight"] == 0]
    ranked = {one["share"]: one["auroc"] + one["average_precision"] for one in tried}
    assert len(set(ranked.values())) > 1
    assert {float(alarm.share) for alarm in detector.scorer_.alarms} == {max(ranked, key=ranked.__getitem__)}


def test_trees_read_the_columns_where_anomalies_are_known(fitted: R2AD2, light: R2AD2) -> None:
    X, y, test, _ = tumours()
    assert fitted.shape_["trees"] == len(fitted.scorer_.forest.roots) == 100
    without = clone(light).set_params(trees=None).fit(X, y)
    gradients = clone(light).set_params(columns=False).fit(X, y)
    for detector in (without, gradients):
        assert detector.scorer_.forest is None
        assert detector.shape_["trees"] == 0
        assert not any("forest" in name for name in detector._state()[1])
    assert np.abs(without.anomaly_score(test) - light.anomaly_score(test)).max() > 0.01
    few = clone(light).set_params(trees=3).fit(X, y)
    assert few.shape_["trees"] == 4  # one for each of the networks' parts of the known anomalies
    for wrong in (0, -1, 2.5, "many"):
        with pytest.raises(ValueError, match=r"trees=.* must be 1 or more, or None: a whole number"):
            clone(light).set_params(trees=wrong).fit(X, y)


def test_trees_find_more_where_anomalies_hide_among_many_columns() -> None:
    """Six are known, sixty hide among the rows that pass for normal, and 28 of 30 columns say nothing."""
    rng = np.random.default_rng(0)
    far = np.repeat([3.0, 0.0], [2, 28])

    def draw(count: int) -> np.ndarray:
        return np.exp(rng.normal(size=(count, 30)))

    X, y = np.concatenate([draw(700), draw(66) + far]), np.repeat([0, 1], [760, 6])
    test, truth = np.concatenate([draw(500), draw(100) + far]), np.repeat([0, 1], [500, 100])
    own, without = (
        roc_auc_score(truth, R2AD2(trees=trees, random_state=0).fit(X, y).anomaly_score(test))
        for trees in (100, None)
    )
    assert own > 0.9  # 0.94 was measured
    assert own > without + 0.03  # 0.85


def test_columns_stand_beside_gradients_unless_left_out(fitted: R2AD2) -> None:
    X, y, test, truth = tumours()
    alone = clone(fitted).set_params(columns=False).fit(X, y)
    assert (fitted.shape_["columns"], alone.shape_["columns"]) == (30, 0)
    assert [len(alarm.members) for alarm in fitted.scorer_.alarms] == [2] * 4
    assert [len(alarm.members) for alarm in alone.scorer_.alarms] == [1] * 4
    assert np.abs(alone.anomaly_score(test) - fitted.anomaly_score(test)).max() > 0.01
    assert roc_auc_score(truth, alone.anomaly_score(test)) > 0.92  # 0.948 was measured
    rows = torch.from_numpy(fitted.encoder_.table.transform(test))
    assert torch.equal(alone._gradients_of(rows), fitted._gradients_of(rows))


def test_without_columns_alarm_networks_see_gradients_alone(fitted: R2AD2) -> None:
    """Columns that change while the gradients stay move the score only where they are read."""
    X, y, test, _ = tumours()
    alone = clone(fitted).set_params(columns=False, epochs=1).fit(X, y)
    rows = torch.from_numpy(fitted.encoder_.table.transform(test))
    gradients = fitted._gradients_of(rows).flatten(1)
    assert torch.equal(alone._entries_of(rows), alone._gradients_of(rows).flatten(1))
    read = fitted._entries_of(rows)
    assert torch.equal(read, torch.cat([gradients, rows.double()], dim=1))
    other = torch.cat([gradients, rows.double().flip(0)], dim=1)
    scorer = fitted.scorer_
    assert (scorer(other) - scorer(read)).abs().max() > 0.01
    features, changed = scorer.standard(read), scorer.standard(other)
    assert torch.equal(scorer.novelty(features), scorer.novelty(changed))


def test_an_autoencoder_has_the_same_widths_for_every_table(fitted: R2AD2) -> None:
    assert fitted.network_["hidden"] == [40, 20, 10]
    assert quick(epochs=1, checkpoints=1).fit(SMALL).network_["hidden"] == [40, 20, 10]
    assert quick(epochs=1, checkpoints=1, hidden=(2, 1)).fit(SMALL).network_["hidden"] == [2, 1]


def test_the_autoencoder_does_not_see_what_is_held_out(fitted: R2AD2) -> None:
    assert len(fitted.holdout_) == round(0.25 * 186)
    assert (np.diff(fitted.holdout_) > 0).all()
    assert fitted.holdout_.max() < 250
    assert [target.module.training for target in fitted.targets_] == [False] * 3


def test_images_go_to_the_convolutional_network(of_images: R2AD2) -> None:
    zeros, others = IMAGES[DIGITS.target == 0], IMAGES[DIGITS.target != 0]
    assert of_images.network_["kind"] == "conv"
    truth = np.repeat([0, 1], [len(zeros), len(others)])
    assert roc_auc_score(truth, of_images.anomaly_score(np.concatenate([zeros, others]))) > 0.9
    y = (DIGITS.target[:200] != 0).astype(int)
    with_known = quick(target="conv").fit(IMAGES[:200], y)
    assert roc_auc_score(DIGITS.target != 0, with_known.anomaly_score(IMAGES)) > 0.9


# One row, one seed, one result.


def test_one_seed_one_result(light: R2AD2) -> None:
    X, y, test, _ = tumours()
    expected = light.anomaly_score(test)
    np.testing.assert_array_equal(clone(light).fit(X, y).anomaly_score(test), expected)
    other = clone(light).set_params(random_state=1).fit(X, y)
    assert not np.allclose(other.anomaly_score(test), expected)


def alone_and_together(detector: R2AD2, rows: np.ndarray) -> None:
    whole = detector.anomaly_score(rows)
    for size in (1, 7):
        pieces = [detector.anomaly_score(rows[i : i + size]) for i in range(0, len(rows), size)]
        np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-5)
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_allclose(detector.anomaly_score(rows[order]), whole[order], rtol=1e-5)


def test_a_row_has_its_own_score(fitted: R2AD2, of_images: R2AD2) -> None:
    X, y, test, _ = tumours()
    alone_and_together(fitted, test[:80])
    alone_and_together(of_images, IMAGES[:40])
    alone_and_together(R2AD2.as_published("mammography", epochs=3, random_state=0).fit(X, y), test[:40])


def test_no_global_generator_is_touched() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()  # noqa: NPY002
    for made in (quick(), quick(random_state=None), R2AD2.as_published("mammography", epochs=1)):
        made.fit(SMALL, LABELS).anomaly_score(SMALL)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tobytes()  # noqa: NPY002


def test_input_is_not_written_to() -> None:
    X = SMALL.copy()
    X.flags.writeable = False
    quick().fit(X, LABELS).anomaly_score(X)
    np.testing.assert_array_equal(X, SMALL)


def test_epochs_that_are_told_only_rise() -> None:
    told: list[dict[str, Any]] = []
    quick(epochs=3, progress=lambda name, found: told.append({"name": name, **found})).fit(SMALL, LABELS)
    assert [one["epoch"] for one in told] == list(range(1, 15 + 3 + 1))
    assert {one["name"] for one in told} == {"epoch"}
    assert {one["epochs"] for one in told} == {18}
    assert [one["stage"] for one in told] == ["autoencoder"] * 15 + ["alarm network"] * 3
    assert "validation_auroc" in told[-1]


# Where rows come from.


def test_a_lazy_frame_gives_the_scores_of_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anograd.lazy.SLICE", 13)
    whole = pl.from_pandas(FRAME)
    expected = quick().fit(whole, LABELS).anomaly_score(whole)
    detector = quick().fit(whole.lazy(), LABELS)
    np.testing.assert_allclose(detector.anomaly_score(whole), expected, rtol=1e-6)
    np.testing.assert_allclose(detector.anomaly_score(whole.lazy()), expected, rtol=1e-5)


def test_rows_and_gradients_on_disk_give_the_scores_of_those_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spilled: list[bool] = []
    allocate = Rows.allocate.__func__

    def noting(cls: type[Rows], n: int, shape: tuple[int, ...], memory: int) -> Rows:
        rows = allocate(cls, n, shape, memory)
        spilled.append(rows.spilled)
        return rows

    monkeypatch.setattr(Rows, "allocate", classmethod(noting))
    rng = np.random.default_rng(0)
    X = pl.DataFrame({f"c{i}": rng.normal(size=7000) for i in range(40)})
    y = (np.arange(7000) >= 6990).astype(int)
    found = []
    for memory in ("1GiB", "1MiB"):
        detector = quick(memory=memory, checkpoints=1, epochs=1).fit(X.lazy(), y)
        found.append(detector.anomaly_score(X[:500]))
    assert spilled == [False, False, True, True]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_a_mixed_frame_end_to_end(tmp_path: Path) -> None:
    frame = FRAME.assign(kind=FRAME["kind"].astype("category"))
    detector = quick().fit(frame, LABELS)
    assert detector.feature_names_in_.tolist() == ["amount", "kind", "size"]
    scores = detector.anomaly_score(frame)
    assert np.isfinite(scores).all()
    unseen = frame.assign(kind="z")
    assert (detector.anomaly_score(unseen) != scores).all()
    detector.save(tmp_path / "model")
    np.testing.assert_array_equal(ag.load(tmp_path / "model").anomaly_score(frame), scores)
    with pytest.raises(ValueError, match="feature names should match"):
        detector.anomaly_score(frame[["kind", "amount", "size"]])


def test_saved_and_loaded_in_a_new_process(light: R2AD2, tmp_path: Path) -> None:
    X, y, test, _ = tumours()
    np.save(tmp_path / "x.npy", test)
    code = (
        "import sys, numpy as np, anograd as ag; x = np.load(sys.argv[1])\n"
        "for name in sys.argv[2:]:\n"
        "    d = ag.load(name)\n"
        "    np.savez(name + '.npz', s=d.anomaly_score(x), p=d.p_values(x), t=d.twin_score(x))"
    )
    published = R2AD2.as_published("mammography", epochs=1, random_state=0).fit(X[::3], y[::3])
    recurrent = quick(recurrent=True, sketch=8).fit(X[::3], y[::3])
    alone = quick(columns=False).fit(X[::3], y[::3])
    made = {"balanced": light, "published": published, "recurrent": recurrent, "alone": alone}
    for name, detector in made.items():
        detector.save(tmp_path / name)
    paths = [str(tmp_path / name) for name in made]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.npy"), *paths], check=True)
    for name, detector in made.items():
        with np.load(tmp_path / f"{name}.npz") as out:
            np.testing.assert_allclose(out["s"], detector.anomaly_score(test), rtol=1e-6)
            np.testing.assert_array_equal(out["p"], detector.p_values(test))
            np.testing.assert_allclose(out["t"], detector.twin_score(test), rtol=1e-6)
    loaded = ag.load(tmp_path / "balanced")
    np.testing.assert_array_equal(loaded.holdout_, light.holdout_)
    assert (loaded.history_, loaded.weights_tried_) == (light.history_, light.weights_tried_)
    assert (loaded.known_, ag.load(tmp_path / "recurrent").known_) == (KNOWN, int(y[::3].sum()))
    again = clone(loaded).fit(X, y)
    np.testing.assert_array_equal(again.anomaly_score(test), light.anomaly_score(test))


# As published.

BIG, SMALLER = (1000, 500, 200, 75), (100, 50, 25, 10)
PROTOCOL = {  # section 2.10 of the specification: autoencoder, alarm network, batch
    "covtype": ((40, 20, 10), BIG, 2048), "creditcard": ((20, 10, 5), BIG, 4096),
    "darknet": ((60, 30, 15), BIG, 1024), "doh": ((20, 10, 5), BIG, 512), "ids": ((60, 40, 20), BIG, 8192),
    "nsl_kdd": ((40, 20, 10), BIG, 512), "mammography": ((5, 3, 2), SMALLER, 128),
    "url": ((60, 30, 15), BIG, 64), "mnist": (None, BIG, 256), "fashion_mnist": (None, BIG, 512),
}  # fmt: skip


@pytest.mark.parametrize("data", PROTOCOL)
def test_published_sizes(data: str) -> None:
    made = R2AD2.as_published(data)
    assert (made.hidden, made.widths, made.batch_size) == PROTOCOL[data]
    assert set(SIZES) == set(PROTOCOL)


def test_published_settings() -> None:
    expected = {
        "dropout": 0.4, "checkpoints": 3, "holdout": 0.25, "sketch": None, "training": "published",
        "recurrent": True, "columns": False, "noise": "gaussian", "epochs": 100, "learning_rate": 1e-3,
    }  # fmt: skip
    assert {name: R2AD2.as_published().get_params()[name] for name in expected} == expected
    assert R2AD2.as_published("mammography", epochs=3).epochs == 3
    with pytest.raises(ValueError, match=r"the paper has no data set 'iris': name one of covtype, .*or none"):
        R2AD2.as_published("iris")
    fitted = R2AD2.as_published("mammography", epochs=2, random_state=0).fit(SMALL, LABELS)
    assert fitted.split_ == {"train": 55, "validation": 0, "calibration": 0}
    assert (fitted.kept_epoch_, len(fitted.history_)) == (2, 2)
    with pytest.raises(ValueError, match="training='published' has no novelty: fit with training='balanced'"):
        fitted.novelty_score(SMALL)


def test_only_the_published_autoencoder_learns_by_the_adam_of_keras() -> None:
    weights = []
    for training in ("published", "balanced", "balanced"):
        made = R2AD2.as_published("mammography", training=training, epochs=1, random_state=0)
        module = made.fit(SMALL, LABELS).targets_[0].module
        weights.append(torch.cat([p.flatten() for p in module.parameters()]))
    assert torch.equal(weights[1], weights[2])
    assert 1e-9 < (weights[0] - weights[1]).abs().max() < 0.1


# Bad input.


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target": "vae"}, "target='vae' was given: write one of 'auto', 'dense', 'conv'"),
        ({"target": "conv"}, "target='conv' takes images.*write target='dense' for a table"),
        ({"training": "own"}, "training='own' was given: write one of 'balanced', 'published'"),
        ({"noise": "pink"}, "noise='pink' was given: write one of 'gaussian', 'uniform', 'permuted', None"),
        ({"checkpoints": 0}, "checkpoints=0 must be 1 or more"),
        ({"networks": 0}, "networks=0 must be 1 or more"),
        ({"epochs": 0}, "epochs=0 must be 1 or more"),
        ({"sketch": 0}, "sketch=0 must be 1 or more, or 'auto', or None"),
        ({"sketch": "all"}, "sketch='all' must be 1 or more, or 'auto', or None"),
        ({"batch_size": 0}, "batch_size=0 must be 1 or more, or 'auto'"),
        ({"dropout": 1.0}, r"dropout=1\.0 is a share: 0 to below 1"),
        ({"holdout": 1}, "holdout=1 is a share: 0 to below 1"),
        ({"learning_rate": 0}, "learning_rate=0 must be above 0"),
        ({"widths": ()}, r"widths=\(\): give widths of 1 or more, such as \(100, 50\)"),
        ({"hidden": (4, 0)}, r"hidden=\(4, 0\): give widths of 1 or more, such as \(40, 20, 10\)"),
        ({"novelty": -1}, "novelty=-1 is a weight: 0 or more, or 'auto'"),
        ({"novelty": "much"}, "novelty='much' is a weight: 0 or more, or 'auto'"),
        ({"memory": "much"}, "memory='much' is no amount of memory"),
        (
            {"trees": None, "recurrent": True, "widths": (8,)},
            r"got widths=\(8,\).*2 or more widths are wanted",
        ),
        ({"validation": 0.5, "calibration": 0.5}, "leave no rows to train on"),
        ({"device": "warp"}, "device='warp' is not to be had here"),
    ],
)
def test_wrong_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quick(**parameters).fit(SMALL)


def test_images_do_not_go_to_the_dense_network() -> None:
    with pytest.raises(ValueError, match=r"target='dense' takes tables.*write 'conv'"):
        quick(target="dense").fit(IMAGES[:20])


def test_labels_of_one_value() -> None:
    with pytest.raises(ValueError, match=r"1 marks a known anomaly, and it marks all 60 rows.*leave y out"):
        quick().fit(SMALL, np.ones(60))
    normal = quick().fit(SMALL, np.zeros(60))
    np.testing.assert_array_equal(normal.anomaly_score(SMALL), quick().fit(SMALL).anomaly_score(SMALL))


def test_a_missing_label_is_named() -> None:
    y = LABELS.astype(float)
    y[7] = np.nan
    with pytest.raises(ValueError, match=r"y holds NaN at row 7.*Give an unlabelled row the normal code"):
        quick().fit(SMALL, y)


def test_nan_in_a_table_is_named_or_filled() -> None:
    gaps = SMALL.copy()
    gaps[5, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN at row 5, column 1.*missing='impute'"):
        quick().fit(gaps)
    assert np.isfinite(quick(missing="impute").fit(gaps).anomaly_score(gaps)).all()


def test_ten_thousand_levels() -> None:
    """Levels beyond the most frequent share columns, so that the network stays small."""
    level = np.arange(12_000) % 10_000
    frame = pd.DataFrame(
        {"size": np.tile(SMALL[:, 0], 200), "shop": [f"shop {i // 10 if i > 99 else 0}" for i in level]}
    )
    frame.loc[:9_999, "shop"] = [f"shop {i}" for i in range(10_000)]
    frame = pd.concat([frame, frame], ignore_index=True)
    assert frame["shop"].nunique() == 10_000
    detector = quick(checkpoints=1, epochs=1).fit(frame)
    assert len(detector.encoder_.table.names_out) < 200
    assert np.isfinite(detector.anomaly_score(frame[:50])).all()


def test_free_text_is_refused_with_the_line_to_change() -> None:
    frame = pd.concat([FRAME, FRAME]).assign(
        note=[f"customer {i} called about invoice {7 * i}" for i in range(120)]
    )
    with pytest.raises(ValueError, match=r"column 'note' looks like text.*X = X\.drop\(columns=\['note'\]\)"):
        quick().fit(frame)


@pytest.mark.parametrize("rows", [4, 5, 9])
def test_few_rows(rows: int) -> None:
    assert np.isfinite(quick(batch_size=512).fit(SMALL[:rows]).anomaly_score(SMALL)).all()
    with pytest.raises(ValueError, match="n_samples=3 normal rows are too few"):
        quick().fit(SMALL[:rows], np.arange(rows) >= 3)


def test_constant_columns_do_no_harm() -> None:
    rows = SMALL.copy()
    rows[:, 1] = 7
    detector = quick().fit(rows, LABELS)
    assert np.isfinite(detector.anomaly_score(rows)).all()
    same = quick().fit(np.ones((60, 3)))
    assert np.isfinite(same.anomaly_score(SMALL)).all()


def test_rows_of_another_kind() -> None:
    with pytest.raises(ValueError, match="3 features"):
        quick(epochs=1).fit(SMALL).anomaly_score(SMALL[:, :2])


# An interrupted fit goes on.


def stop_at(epoch: int) -> Any:
    def stop(name: str, found: Any) -> None:
        if found["epoch"] == epoch:
            raise KeyboardInterrupt

    return stop


WAYS = {
    "balanced": lambda **more: quick(**{"epochs": 3, **more}),
    "recurrent": lambda **more: quick(**{"epochs": 3, "recurrent": True, "noise": "permuted", **more}),
    "published": lambda **more: R2AD2.as_published("mammography", **{"epochs": 3, "checkpoints": 2,
                                                                      "random_state": 0, **more}),
}  # fmt: skip


@cache
def unbroken(way: str) -> R2AD2:
    return WAYS[way]().fit(SMALL, LABELS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("epoch", [4, 10, 15, 16, 18])  # 15 of the autoencoder, 3 of the alarm networks
def test_an_interrupted_fit_goes_on(way: str, epoch: int, tmp_path: Path) -> None:
    path, make, whole = tmp_path / "fit", WAYS[way], unbroken(way)
    with pytest.raises(KeyboardInterrupt):
        make(checkpoint=path, progress=stop_at(epoch)).fit(SMALL, LABELS)
    told: list[tuple[str, int]] = []
    resumed = make(checkpoint=path, progress=lambda name, found: told.append((name, found["epoch"])))
    resumed.fit(SMALL, LABELS)
    assert told == [("resumed", epoch), *(("epoch", i) for i in range(epoch + 1, 19))]
    np.testing.assert_array_equal(resumed.anomaly_score(SMALL), whole.anomaly_score(SMALL))
    np.testing.assert_array_equal(resumed.calibration_.scores, whole.calibration_.scores)
    assert (resumed.history_, resumed.kept_epoch_) == (whole.history_, whole.kept_epoch_)
    assert path.exists()  # until the model is safe
    resumed.save(tmp_path / "model")
    assert [one.name for one in tmp_path.iterdir()] == ["model"]
    assert ag.load(tmp_path / "model").get_params()["checkpoint"] is None


def test_interrupted_twice_and_more_epochs(tmp_path: Path) -> None:
    path = tmp_path / "fit"
    for epoch in (7, 16):
        with pytest.raises(KeyboardInterrupt):
            quick(epochs=2, checkpoint=path, progress=stop_at(epoch)).fit(SMALL, LABELS)
    resumed = quick(epochs=4, checkpoint=path).fit(SMALL, LABELS)
    whole = quick(epochs=4).fit(SMALL, LABELS)
    np.testing.assert_array_equal(resumed.anomaly_score(SMALL), whole.anomaly_score(SMALL))


def test_a_checkpoint_of_another_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit"
    with pytest.raises(KeyboardInterrupt):
        quick(checkpoint=path, progress=stop_at(3)).fit(SMALL, LABELS)
    other = SMALL.copy()
    other[-1, -1] += 1e-3
    refused = "fit was left by a fit with other data or settings: remove it to start afresh"
    for X, y, changes in (
        (other, LABELS, {}),
        (SMALL, 1 - LABELS[::-1], {}),
        (SMALL, None, {}),
        (SMALL, LABELS, {"random_state": 1}),
        (SMALL, LABELS, {"widths": (9, 9)}),
        (SMALL, LABELS, {"noise": None}),
        (SMALL, LABELS, {"calibration": 0.1}),
        (SMALL, LABELS, {"checkpoints": 3}),
    ):
        with pytest.raises(ValueError, match=refused):
            quick(checkpoint=path, **changes).fit(X, y)
    with pytest.raises(ValueError, match=refused):
        ag.GradCon(checkpoint=path, random_state=0).fit(SMALL)
    quick(checkpoint=path, memory="1GiB", false_alarm_rate=0.1).fit(SMALL, LABELS)  # these change no weight
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="fit is no checkpoint of a fit"):
        quick(checkpoint=path).fit(SMALL, LABELS)


def test_a_row_is_explained_by_the_published_method_though_columns_are_asked_for() -> None:
    X = np.random.default_rng(0).normal(size=(80, 5))
    published = R2AD2(training="published", epochs=1, random_state=0, hidden=(4, 2), widths=(4, 3, 2))
    found = published.fit(X, np.arange(80) > 74).explain(X[:2])
    assert "columns" not in found.part_names
    np.testing.assert_allclose(found.scores, published.anomaly_score(X[:2]))


def test_without_labels_a_cell_far_off_stands_above_all_normal_rows() -> None:
    def rows(count: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        shop, vip = rng.choice(["a", "b", "c"], count), rng.random(count) < 0.3
        return pd.DataFrame({"amount": rng.normal(50, 9, count), "shop": shop, "vip": vip})

    detector = R2AD2(random_state=0).fit(rows(2000, 0))
    new = rows(200, 100)
    new.loc[:1, "amount"] = 400.0
    assert set(np.argsort(detector.anomaly_score(new))[-2:]) == {0, 1}
    assert detector.p_values(new)[:2].max() < 0.01
