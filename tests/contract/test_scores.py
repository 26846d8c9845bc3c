"""A score is a function of the row, one seed gives one result, and a false-alarm rate means what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import binom
from sklearn.base import clone
from torch import nn

import anograd as ag
from anograd import R2AD2, GradCon, GradNeighbours, Target
from anograd.detectors import checks
from anograd.detectors.split import drawn


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Blurred noise with a bright square, (90, 1, 12, 12), 0..255."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 60, (90, 1, 12, 12)).astype(np.uint8)
    x[:, :, 3:8, 3:8] += 120
    return x


@pytest.fixture(scope="module")
def fitted(images: np.ndarray) -> GradCon:
    return GradCon(epochs=10, batch_size=8, calibration=0.4, random_state=0).fit(images[:60])


def test_alone_in_any_batch_and_in_any_order(fitted: GradCon, images: np.ndarray) -> None:
    together = fitted.anomaly_score(images)
    alone = np.concatenate([fitted.anomaly_score(images[i : i + 1]) for i in range(len(images))])
    near = 1e-5 * np.ptp(together[:60])  # of normal rows: loss and cosine may cancel out
    np.testing.assert_allclose(alone, together, rtol=0, atol=near)
    losses = [fitted.twin_score(images[i : i + 1]).item() for i in range(len(images))]
    np.testing.assert_allclose(losses, fitted.twin_score(images), rtol=1e-5)
    order = np.random.default_rng(1).permutation(len(images))
    np.testing.assert_allclose(fitted.anomaly_score(images[order]), together[order], rtol=0, atol=near)
    np.testing.assert_allclose(fitted.anomaly_score(images[:7]), together[:7], rtol=0, atol=near)


def test_one_seed_one_result(fitted: GradCon, images: np.ndarray) -> None:
    again = clone(fitted).fit(images[:60])
    np.testing.assert_array_equal(again.anomaly_score(images), fitted.anomaly_score(images))
    other = clone(fitted).set_params(random_state=1).fit(images[:60])
    assert not np.allclose(other.anomaly_score(images), fitted.anomaly_score(images))


def test_directions(fitted: GradCon, images: np.ndarray) -> None:
    odd = 255 - images[60:]
    assert fitted.anomaly_score(odd).min() > fitted.anomaly_score(images[60:]).max()
    assert fitted.score_samples(odd).max() < fitted.score_samples(images[60:]).min()
    assert fitted.p_values(odd).max() < fitted.p_values(images[60:]).mean()
    assert (fitted.predict(odd) == -1).all()
    assert fitted.detect(odd).all()
    assert fitted.twin_score(odd).min() > fitted.twin_score(images[60:]).max()


def test_the_three_rules_change_without_a_refit(fitted: GradCon, images: np.ndarray) -> None:
    rows = np.concatenate([images[60:], 255 - images[60:65]])
    assert fitted.detect(rows, budget=5).tolist() == [False] * 30 + [True] * 5
    assert fitted.detect(rows, alpha=0.2).sum() >= fitted.detect(rows, alpha=0.1).sum()
    np.testing.assert_array_equal(fitted.detect(rows, alpha=0.1), fitted.p_values(rows) <= 0.1)
    np.testing.assert_array_equal(fitted.predict(rows) == -1, fitted.detect(rows, alpha=0.05))


@pytest.mark.parametrize("detector", [GradCon(epochs=2), R2AD2(epochs=2), GradNeighbours(epochs=2)])
@pytest.mark.parametrize("kind", ["table", "categories", "images"])
def test_nothing_is_learned_from_rows_held_out_for_p_values(detector, kind, images: np.ndarray) -> None:
    if kind == "images":
        rows, other = images, images // 2
    else:
        rows = np.random.default_rng(0).normal(size=(90, 3)).round()
        other = 9 * rows
    _, split = drawn(
        torch.zeros(60, dtype=torch.bool), detector.validation, detector.calibration, checks.seed(0)
    )
    changed = rows[:60].copy()
    changed[split.calibration] = other[split.calibration]
    given = [rows[:60], changed, rows[60:]]
    if kind == "categories":
        given = [pl.DataFrame(one.astype(str), schema=["a", "b", "c"]) for one in given]
    scores = [
        clone(detector).set_params(random_state=0).fit(one).anomaly_score(given[2]) for one in given[:2]
    ]
    np.testing.assert_array_equal(*scores)


def test_predict_falls_back_on_the_smallest_reachable_rate(images: np.ndarray) -> None:
    detector = GradCon(epochs=2, calibration=0.2, false_alarm_rate=0.01, random_state=0).fit(images[:60])
    m = len(detector.calibration_.scores)
    assert m == 12
    rows = np.concatenate([images[60:], 255 - images[60:65]])
    np.testing.assert_array_equal(detector.predict(rows) == -1, detector.p_values(rows) <= 1 / (m + 1))
    with pytest.warns(UserWarning, match="with m = 12 calibration rows the smallest p value is 0.07692"):
        assert not detector.detect(rows, alpha=0.01).any()


def test_same_scores_for_every_kind_of_input(fitted: GradCon, images: np.ndarray) -> None:
    expected = fitted.anomaly_score(images)
    tensor = torch.from_numpy(images)
    np.testing.assert_array_equal(fitted.anomaly_score(tensor), expected)
    dataset = torch.utils.data.TensorDataset(tensor, torch.zeros(len(images)))
    np.testing.assert_array_equal(fitted.anomaly_score(dataset), expected)
    np.testing.assert_array_equal(fitted.anomaly_score(images[:, 0]), expected)


def test_the_same_in_a_new_process(fitted: GradCon, images: np.ndarray, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    np.save(tmp_path / "x.npy", images)
    code = (
        "import sys, numpy as np, anograd as ag; d = ag.load(sys.argv[1]); x = np.load(sys.argv[2]); "
        "np.savez(sys.argv[3], s=d.anomaly_score(x), p=d.p_values(x), y=d.predict(x))"
    )
    paths = [str(tmp_path / name) for name in ("model", "x.npy", "out.npz")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["s"], fitted.anomaly_score(images), rtol=1e-6)
        np.testing.assert_array_equal(out["p"], fitted.p_values(images))
        np.testing.assert_array_equal(out["y"], fitted.predict(images))


def test_a_loaded_detector_can_be_refitted(fitted: GradCon, images: np.ndarray, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    again = clone(ag.load(tmp_path / "model")).fit(images[:60])
    np.testing.assert_array_equal(again.anomaly_score(images), fitted.anomaly_score(images))


@pytest.mark.parametrize("target", ["vae", "dense"])
def test_other_networks_are_saved_and_loaded(target: str, images: np.ndarray, tmp_path: Path) -> None:
    rows = images.reshape(len(images), -1)[:, :20] if target == "dense" else images
    detector = GradCon(target=target, epochs=2, random_state=0).fit(rows)
    detector.save(tmp_path / "model")
    loaded = ag.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.anomaly_score(rows), detector.anomaly_score(rows))
    np.testing.assert_array_equal(loaded.alignment(rows), detector.alignment(rows))


def test_an_adopted_network_is_handed_in_again_at_loading(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.rand(60, 5)
    net = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 5))
    detector = GradCon(target=Target.adopt(net, layers="2.weight"), random_state=0).fit(x)
    detector.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"handed in \(Sequential\).*target=Target\.adopt"):
        ag.load(tmp_path / "model")
    same_kind = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 5))
    loaded = ag.load(tmp_path / "model", target=Target.adopt(same_kind, layers="2.weight"))
    np.testing.assert_array_equal(loaded.anomaly_score(x), detector.anomaly_score(x))


def test_the_post_hoc_reference_is_the_mean_gradient_of_the_training_rows() -> None:
    torch.manual_seed(0)
    x = torch.rand(50, 5)
    net = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 5))
    target = Target.adopt(net, layers="*.weight")
    detector = GradCon(target=target, random_state=0, calibration=0, validation=0, batch_size=7).fit(x)
    full = ag.per_sample(target, x, ("full",)).full.mean(0)
    ours = torch.cat([r.flatten() for r in detector.reference_.values()])
    torch.testing.assert_close(ours, full)


@pytest.mark.parametrize("n", [100, 200, 1000])
def test_false_alarm_rate_of_detect(n: int) -> None:
    """50 fits on n normal rows, 20 fresh ones each: alarms at 0.05 within the 95 % binomial interval."""
    repetitions, fresh = 50, 20
    alarms = 0
    for seed in range(repetitions):
        rng = np.random.default_rng([n, seed])
        mix = rng.normal(size=(6, 6))
        rows = rng.normal(size=(n + fresh, 6)) @ mix
        detector = GradCon(epochs=3, random_state=seed).fit(rows[:n])
        alarms += int(detector.detect(rows[n:], alpha=0.05).sum())
    low, high = binom.interval(0.95, repetitions * fresh, 0.05)
    assert low <= alarms <= high, f"{alarms} alarms in {repetitions * fresh} rows"


def test_constant_scores_raise_no_alarm(images: np.ndarray) -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 0 * self.weight

    detector = GradCon(target=Target.adopt(Constant()), random_state=0).fit(images[:60].astype("float32"))
    rows = images[60:].astype("float32")
    assert np.ptp(detector.anomaly_score(rows)) == 0
    assert (detector.p_values(rows) == 1).all()
    assert not detector.detect(rows, alpha=0.2).any()
    assert not detector.detect(rows, budget=3).any()
    with pytest.warns(UserWarning, match="fdr"):
        assert not detector.detect(rows, fdr=0.1).any()
    assert (detector.predict(rows) == 1).all()


def test_calibrating_on_new_rows_changes_p_values_and_not_scores(fitted: GradCon, images: np.ndarray) -> None:
    detector = clone(fitted).fit(images[:60])
    before = detector.anomaly_score(images)
    detector.calibrate(images[60:])
    np.testing.assert_array_equal(detector.anomaly_score(images), before)
    assert len(detector.calibration_.scores) == 30
    np.testing.assert_allclose(detector.p_values(images[60:]).min(), 2 / 31)


def test_marked_rows_are_left_out_of_training(images: np.ndarray) -> None:
    mixed = np.concatenate([images[:60], 255 - images[60:]])
    y = np.repeat([0, 1], [60, 30])
    with_labels = GradCon(epochs=2, random_state=0).fit(mixed, y)
    without = GradCon(epochs=2, random_state=0).fit(images[:60])
    np.testing.assert_array_equal(with_labels.anomaly_score(images), without.anomaly_score(images))
    signed = GradCon(epochs=2, random_state=0).fit(mixed, 1 - 2 * y)
    np.testing.assert_array_equal(signed.anomaly_score(images), without.anomaly_score(images))
