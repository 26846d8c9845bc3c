"""What the scores of a finished network's gradients promise, each of them on a table, images and tokens."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.base import clone
from torch import nn

import anograd as ag
from anograd import (
    GradCon,
    GradDensity,
    GradNeighbours,
    GradReferences,
    GradScoreTest,
    GradSubspace,
    GraN,
    Target,
)
from anograd.train import seeded

# A row's score may differ by rounding with the rows beside it. Log densities, logits, logarithms of what is
# left outside and differences of cosines pass through 0, where no relative error holds but an absolute one.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
# Images are read in single precision, whose rounding shows in entries that hardly move on normal rows: these
# count in units of how they move. What layers read is in double precision where all of F is taken of it.
IMAGES_IN_UNITS = {"rtol": 1e-3, "atol": 1e-3}
IN_UNITS = (
    "GradNeighbours",
    "GradScoreTest",
    "GradScoreTest, projected",
    "GradScoreTest, blocks",
    "GradScoreTest, inputs",
)
TWINS_IN_UNITS = ("GradNeighbours", "GradScoreTest")

KINDS: dict[str, Callable[..., Any]] = {
    "GradDensity": GradDensity,
    "GradScoreTest": GradScoreTest,
    "GradScoreTest, projected": partial(GradScoreTest, fisher="projected"),
    "GradScoreTest, blocks": partial(GradScoreTest, fisher="blocks", direction=False),
    "GradScoreTest, inputs": partial(GradScoreTest, fisher="projected", inputs=True),
    "GradSubspace": GradSubspace,
    "GradNeighbours": GradNeighbours,
    "GradReferences": GradReferences,
    "GraN": GraN,
}
each = pytest.mark.parametrize("name", KINDS)
KNOWN = np.arange(60) % 10 == 7  # which rows are labelled, 6 of 60


@cache
def a_table() -> pd.DataFrame:
    """Two numbers that go together and a category that tells their sign; (110, 3), odd where labelled."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=110)
    b = a + 0.1 * rng.normal(size=110)
    b[:60][KNOWN] *= -6
    return pd.DataFrame({"a": a, "b": b, "sign": np.where(a > 0, "plus", "minus")})


@cache
def some_images() -> NDArray[np.uint8]:
    """Noise with a bright square, (110, 1, 9, 9), inverted where labelled."""
    x = np.random.default_rng(0).integers(0, 60, (110, 1, 9, 9)).astype(np.uint8)
    x[:, :, 2:6, 2:6] += 120
    x[:60][KNOWN] = 255 - x[:60][KNOWN]
    return x


@cache
def some_tokens() -> NDArray[np.int64]:
    """Words of 0..8 in ascending order, (110, 5), in any order where labelled."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.integers(0, 6, (110, 5)), axis=1)
    x[:60][KNOWN] = rng.integers(0, 9, (KNOWN.sum(), 5))
    return x


def a_network(seed: int = 0) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))


def cross_entropy(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(output.transpose(1, 2), x, reduction="none").mean(1)


def tokens_of(net: nn.Module) -> Target:
    return Target.adopt(net, loss=cross_entropy)


ROWS: dict[str, Callable[[], Any]] = {"table": a_table, "images": some_images, "tokens": some_tokens}
on_each_input = pytest.mark.parametrize("given", ROWS)


def fresh(name: str, given: str) -> Any:
    if given == "tokens":
        return KINDS[name](target=tokens_of(a_network()), calibration=0.4, random_state=0)
    return KINDS[name](epochs=4, batch_size=16, calibration=0.4, random_state=0)


@cache
def fitted(name: str, given: str) -> Any:
    return fresh(name, given).fit(ROWS[given]()[:60], KNOWN)


def taken(x: Any, index: Any) -> Any:
    return x.iloc[index] if isinstance(x, pd.DataFrame) else x[index]


@each
@on_each_input
def test_one_seed_one_result(name: str, given: str) -> None:
    x, detector = ROWS[given](), fitted(name, given)
    again = fresh(name, given).fit(x[:60], KNOWN)
    np.testing.assert_array_equal(again.anomaly_score(x), detector.anomaly_score(x))
    np.testing.assert_array_equal(again.twin_score(x), detector.twin_score(x))
    other = fresh(name, given).set_params(random_state=1).fit(x[:60], KNOWN)
    assert not np.allclose(other.anomaly_score(x), detector.anomaly_score(x))


@each
@on_each_input
def test_alone_in_any_batch_and_in_any_order(name: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, detector = ROWS[given](), fitted(name, given)
    order = np.random.default_rng(1).permutation(110)
    for score, in_units in ((detector.anomaly_score, IN_UNITS), (detector.twin_score, TWINS_IN_UNITS)):
        close = IMAGES_IN_UNITS if given == "images" and name in in_units else CLOSE
        together = score(x)
        assert together.dtype == np.float64
        assert together.shape == (110,)
        alone = np.concatenate([score(taken(x, [i])) for i in range(0, 110, 10)])
        np.testing.assert_allclose(alone, together[::10], **close)
        np.testing.assert_allclose(score(taken(x, order)), together[order], **close)
        for size in (1, 100):
            with monkeypatch.context() as patch:
                patch.setattr("anograd.detectors.base.SCORED_AT_ONCE", size)
                np.testing.assert_allclose(score(x[:101]), together[:101], **close)


def test_the_same_in_a_new_process(tmp_path: Path) -> None:
    """To the last bit, in as many threads."""
    x = some_images()
    np.save(tmp_path / "x.npy", x)
    for name in KINDS:
        fitted(name, "images").save(tmp_path / name)
    code = (
        "import sys, numpy as np, torch, anograd as ag; torch.set_num_threads(1); x = np.load('x.npy')\n"
        "for name in sys.argv[1:]:\n"
        "    d = ag.load(name)\n"
        "    np.savez(name + '.npz', s=d.anomaly_score(x), t=d.twin_score(x), y=d.predict(x), k=d.known_)"
    )
    subprocess.run([sys.executable, "-c", code, *KINDS], check=True, cwd=tmp_path)
    for name in KINDS:
        detector = fitted(name, "images")
        with np.load(tmp_path / f"{name}.npz") as out:
            np.testing.assert_array_equal(out["s"], detector.anomaly_score(x))
            np.testing.assert_array_equal(out["t"], detector.twin_score(x))
            np.testing.assert_array_equal(out["y"], detector.predict(x))
            assert out["k"] == detector.known_


@each
@on_each_input
def test_a_loaded_detector_scores_alike_and_can_be_refitted(name: str, given: str, tmp_path: Path) -> None:
    x, detector = ROWS[given](), fitted(name, given)
    detector.save(tmp_path / "model")
    # A network that was handed in is handed in again, and gets the weights that it had.
    target = tokens_of(a_network(seed=1)) if given == "tokens" else None
    loaded = ag.load(tmp_path / "model", target=target)
    for again in (loaded, clone(loaded).fit(x[:60], KNOWN)):
        np.testing.assert_array_equal(again.anomaly_score(x), detector.anomaly_score(x))
        np.testing.assert_array_equal(again.twin_score(x), detector.twin_score(x))
        np.testing.assert_array_equal(again.calibration_.scores, detector.calibration_.scores)
    if given == "tokens":
        with pytest.raises(ValueError, match=r"handed in \(Sequential\).*target=Target\.adopt"):
            ag.load(tmp_path / "model")


@each
def test_outliers_raise_an_alarm(name: str) -> None:
    x, images = some_images(), fitted(name, "images")
    assert images.detect(255 - x[60:], alpha=0.05).all()
    assert (images.predict(255 - x[60:]) == -1).all()
    assert images.twin_score(255 - x[60:]).min() > np.median(images.twin_score(x[60:]))
    assert images.detect(x[60:], alpha=0.05).mean() < 0.25
    # Labelled rows lie on both sides of the table, so that their mean gradient says little.
    if name != "GradReferences":
        odd = pd.DataFrame({"a": [2.0, -2.0], "b": [-12.0, 12.0], "sign": ["plus", "minus"]})
        assert fitted(name, "table").detect(odd, alpha=0.05).all()


@each
@on_each_input
def test_known_anomalies_are_left_out_or_learned_from(name: str, given: str) -> None:
    """All are left out of training; what they look like matters to those alone that learn from them."""
    x, detector = ROWS[given](), fitted(name, given)
    without = fresh(name, given).fit(taken(x, np.flatnonzero(~KNOWN)))
    others = x[:60].copy()
    others[KNOWN] = np.asarray(x[60 : 60 + KNOWN.sum()])
    with_others = fresh(name, given).fit(others, KNOWN)
    assert detector.split_ == without.split_ == with_others.split_
    same = [np.array_equal(one.anomaly_score(x), detector.anomaly_score(x)) for one in (without, with_others)]
    assert same == [not detector.learns_from_known] * 2
    weights = [one.target_.module.state_dict() for one in (detector, without, with_others)]
    assert all(torch.equal(value, one[key]) for one in weights for key, value in weights[0].items())
    assert type(detector).learns_from_known == (name in ("GradReferences", "GraN"))


@pytest.mark.parametrize("name", [*KINDS, "GradCon"])
def test_a_network_that_was_trained_on_is_refused(name: str) -> None:
    x = some_tokens()
    net = a_network()
    detector = ({"GradCon": GradCon} | KINDS)[name](target=tokens_of(net), random_state=0).fit(x)
    before = detector.anomaly_score(x)
    with torch.no_grad():
        net[1].bias[3] += 1e-3
    told = (
        r"the network that was handed in \(Sequential\) has other weights than when this detector was fitted"
        r": fit it again, or hand over a copy that nobody trains, target=Target\.adopt\(copy\.deepcopy\(net\)"
    )
    asks = ("anomaly_score", "twin_score", "p_values", "detect", "predict", "calibrate", "score_samples")
    for ask in asks:
        with pytest.raises(ValueError, match=told):
            getattr(detector, ask)(x)
    with torch.no_grad():
        net[1].bias.copy_(a_network()[1].bias)
    np.testing.assert_array_equal(detector.anomaly_score(x), before)  # as it was
    with torch.no_grad():
        net[1].bias[3] += 1e-3
    assert np.isfinite(detector.fit(x).anomaly_score(x)).all()


def test_a_copy_that_nobody_trains_is_not_refused() -> None:
    x, net = some_tokens(), a_network()
    detector = GradDensity(target=tokens_of(copy.deepcopy(net)), random_state=0).fit(x)
    with torch.no_grad():
        net[1].bias[3] += 1
    assert np.isfinite(detector.anomaly_score(x)).all()


@each
def test_running_statistics_count_as_weights(name: str) -> None:
    with seeded(0):
        x = torch.rand(40, 4)
        net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 4))
    detector = KINDS[name](target=Target.adopt(net), random_state=0).fit(x)
    detector.anomaly_score(x)
    net.train()(x)
    with pytest.raises(ValueError, match="has other weights"):
        detector.anomaly_score(x)


@each
def test_wrong_rows_are_refused_by_name(name: str) -> None:
    numbers = np.random.default_rng(0).normal(size=(40, 3))
    gap = numbers.copy()
    gap[17, 1] = np.nan
    new = KINDS[name](epochs=1, random_state=0)
    with pytest.raises(ValueError, match=r"NaN at row 17, column 1.*missing='impute'"):
        new.fit(gap)
    for n in (0, 1):
        with pytest.raises(ValueError, match=rf"n_samples={n}|{n} sample"):
            new.fit(numbers[:n])
    with pytest.raises(ValueError, match=r"n_samples=3 normal rows are too few.*at least 4"):
        new.fit(numbers[:5], np.arange(5) < 2)
    detector = new.fit(numbers)
    for score in (detector.anomaly_score, detector.twin_score):
        with pytest.raises(ValueError, match=r"2 features.*expecting 3 features"):
            score(numbers[:, :2])
        with pytest.raises(ValueError, match="NaN at row 17, column 1"):
            score(gap)
    with pytest.raises(ValueError, match="shape 1 x 8 x 8, but the detector was fitted on 1 x 9 x 9"):
        fitted(name, "images").anomaly_score(np.zeros((2, 1, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="shape 7, but the detector was fitted on 5"):
        fitted(name, "tokens").anomaly_score(np.zeros((2, 7), int))
    with pytest.raises(ValueError, match="feature names should match"):
        fitted(name, "table").anomaly_score(a_table().rename(columns={"a": "c"}))


@each
@pytest.mark.parametrize("calibration", [0.0, 0.2])
@pytest.mark.parametrize("labelled", [False, True])
def test_four_rows_will_do(name: str, calibration: float, labelled: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3))
    detector = KINDS[name](epochs=1, calibration=calibration, random_state=0)
    detector.fit(rows, np.arange(5) == 2) if labelled else detector.fit(rows[:4])
    for score in (detector.anomaly_score, detector.twin_score):
        assert np.isfinite(score(rows)).all()
        assert np.isfinite(score(rows[:1])).all()


@each
def test_constant_rows_do_no_harm(name: str) -> None:
    detector = KINDS[name](epochs=1, random_state=0).fit(np.full((40, 3), 7.0))
    for score in (detector.anomaly_score, detector.twin_score):
        same = score(np.full((5, 3), 7.0))
        if name != "GradNeighbours":  # whose unit, how far normal rows move, is one of rounding here
            np.testing.assert_allclose(same, same[0], **CLOSE)
        assert np.isfinite(score(np.array([[7.0, 7.0, 9.0], [1e6, -1e6, 0.0]]))).all()
    assert detector.anomaly_score([[9.0, 5.0, 8.0]]) > detector.anomaly_score([[7.0, 7.0, 7.0]])
    # Five rows, which no vector register divides: the last may differ from the others in its last bit.
    if name != "GradNeighbours":
        assert (detector.p_values(np.full((5, 3), 7.0)) > 0.5).all()


@each
def test_missing_values_are_filled_where_asked(name: str) -> None:
    gaps = a_table().copy()
    gaps.loc[5, "a"] = np.nan
    gaps.loc[6, "sign"] = None
    detector = KINDS[name](epochs=1, missing="impute", random_state=0).fit(gaps)
    assert np.isfinite(detector.anomaly_score(gaps)).all()
    assert np.isfinite(detector.twin_score(gaps)).all()


@each
def test_false_alarm_rate_of_detect(name: str) -> None:
    """150 fits, one fresh row each: alarms at 0.1 within the 95 % binomial interval.

    On a network that is given, so that a fit costs little; how often alarms are false does not depend on
    the network. One row a fit, as rows that share a calibration do not vary independently.
    """
    with seeded(0):
        target = Target.adopt(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 3)))
    fits, alarms = 150, 0
    for seed in range(fits):
        rows = np.random.default_rng([seed, 1]).normal(size=(40, 3)).astype(np.float32)
        # 19 of 39 normal rows are held out, so that a tenth of 20 ranks raises an alarm
        detector = KINDS[name](target=target, calibration=0.49, random_state=seed).fit(rows[:39])
        assert len(detector.calibration_.scores) == 19
        alarms += int(detector.detect(rows[39:], alpha=0.1).sum())
    low, high = binom.interval(0.95, fits, 0.1)
    assert low <= alarms <= high, f"{alarms} alarms in {fits} rows"
