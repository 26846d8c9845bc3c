"""Explanations: what a part contributes is what the score loses without it, and the right parts are named."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import anograd as ag
from anograd.detectors import DETECTORS
from anograd.explain import Explanation, contributions, nearest, patches, spread

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(160, 2)) @ RNG.normal(size=(2, 5)) + 0.05 * RNG.normal(size=(160, 5))
FAST = {"epochs": 15, "random_state": 0}


def test_columns_of_a_frame_keep_their_names_where_the_network_is_handed_in():
    frame = pl.DataFrame(NORMAL[:, :3], schema=["a", "b", "c"])
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3))
    detector = ag.GradCon(target=ag.Target.adopt(net, loss="mse"), random_state=0).fit(frame)
    found = detector.explain(frame[:2], normal=frame[5:50])
    assert found.names == ("a", "b", "c")
    assert {name for name, *_ in found.top(0, 3)} <= {"a", "b", "c"}


@given(
    rows=st.integers(1, 4),
    groups=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_sum_over_parts_is_taken_apart_exactly(rows, groups, seed):
    number = torch.tensor(np.unique(groups, return_inverse=True)[1])
    drawn = torch.Generator().manual_seed(seed)
    x, expected = (torch.randn(rows, len(groups), generator=drawn, dtype=torch.float64) for _ in range(2))
    weight = torch.randn(len(groups), generator=drawn, dtype=torch.float64)
    found, scores = contributions(lambda z: (weight * z.sin()).sum(1), x, expected, number)
    own = weight * (x.sin() - expected.sin())
    for group in range(found.shape[1]):
        torch.testing.assert_close(found[:, group], own[:, number == group].sum(1))
    torch.testing.assert_close(scores, (weight * x.sin()).sum(1))


def test_parts_that_act_together_share_by_both_ends():
    x, expected = torch.tensor([[2.0, 3.0]]), torch.zeros(1, 2)
    found, _ = contributions(lambda z: z.prod(1), x, expected, torch.arange(2))
    assert found.tolist() == [[3.0, 3.0]]  # loses 6 without either, gains nothing by one alone


def test_contributions_are_those_of_brute_force_whatever_the_batches():
    x, expected = torch.rand(3, 2, 5, 5), torch.rand(3, 2, 5, 5)
    groups = patches((2, 5, 5), 2)

    def score(z):
        return z.flatten(1).square().mean(1).sqrt()

    found, _ = contributions(score, x, expected, groups)
    for row in range(3):
        for group in range(int(groups.max()) + 1):
            inside = groups == group
            repaired, alone = x[row].clone(), expected[row].clone()
            repaired[inside], alone[inside] = expected[row][inside], x[row][inside]
            loses = score(x[row : row + 1]) - score(repaired[None])
            gains = score(alone[None]) - score(expected[row : row + 1])
            assert found[row, group] == pytest.approx(float(loses + gains) / 2, abs=1e-6)


def test_patches_cover_an_image_and_channels_share_them():
    groups = patches((3, 5, 7), 4)
    assert groups.shape == (3, 5, 7)
    assert groups.unique().tolist() == [0, 1, 2, 3]
    assert torch.equal(groups[0], groups[2])
    assert (groups[0, :4, :4] == 0).all()
    assert groups[0, 4, 6] == 3


def test_a_patch_is_spread_over_its_pixels_by_their_difference():
    groups = torch.tensor([[[0, 0], [1, 1]]])
    difference = torch.tensor([[[[1.0, 3.0], [0.0, 0.0]]]])
    shown = spread(torch.tensor([[10.0, 4.0]]), groups, difference)
    assert shown.tolist() == [[[[1.0, 9.0], [2.0, 2.0]]]]


@pytest.mark.parametrize(("side", "patches_along"), [(48, 12), (96, 24), (240, 24)])
def test_large_pictures_are_cut_into_no_more_patches(side, patches_along):
    images = RNG.random((20, 250, side, 2))
    target = ag.Target.adopt(nn.Conv2d(250, 250, 1))
    detector = ag.GradCon(target=target, random_state=0).fit(images)
    scored = []
    detector._score_batch = lambda rows: scored.append(len(rows)) or rows.flatten(1).sum(1)
    for patch in (None, side // patches_along):
        detector.explain(images[:1], patch=patch)
    assert sum(scored[: len(scored) // 2]) == sum(scored[len(scored) // 2 :])


def test_the_nearest_are_found_in_order():
    others = torch.tensor([[5.0], [1.0], [2.0]])
    assert nearest(torch.tensor([[0.0], [9.0]]), others, 2).tolist() == [[1, 2], [0, 2]]
    assert nearest(torch.tensor([[0.0]]), others, 9).shape == (1, 3)


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in ("gradnorm", "gradlabels")])
def test_the_column_that_was_spoilt_is_named(name):
    X = np.concatenate([NORMAL, 3 * np.random.default_rng(0).normal(size=(40, 5))])
    detector = DETECTORS[name](**FAST).fit(X, np.repeat([0, 1], [160, 40]))
    odd = NORMAL[:6].copy()
    odd[np.arange(6), np.arange(6) % 5] += 12
    found = detector.explain(odd, normal=NORMAL)
    np.testing.assert_allclose(found.scores, detector.anomaly_score(odd), rtol=1e-6)
    assert found.features.shape == (6, 5)
    assert found.expected.shape == (6, 5)
    named = [found.top(row, 1)[0][0] if found.top(row, 1) else "" for row in range(6)]
    right = sum(name == str(row % 5) for row, name in enumerate(named))
    # The references learn in what direction known anomalies lie, whichever column they are odd in.
    assert right >= (3 if name == "gradreferences" else 6), named
    assert found.nearest.shape == (6, 3)
    assert found.parts.shape == (6, len(found.part_names))


def test_a_row_of_the_fit_has_itself_as_its_nearest_row():
    detector = ag.GradNeighbours(**FAST).fit(NORMAL)
    found = detector.explain(NORMAL[[3, 50]], normal=NORMAL)
    assert found.nearest[:, 0].tolist() == [3, 50]
    np.testing.assert_allclose(found.features, 0, atol=1e-9)  # nothing is to be put right


def test_gradcons_parts_are_its_terms():
    detector = ag.GradCon(**FAST).fit(NORMAL)
    rows = 3 * NORMAL[:4]
    found = detector.explain(rows)
    assert found.part_names == ("loss", *detector.target_.layers)
    cosines, usual = detector.alignment(rows), detector.usual_.numpy()
    np.testing.assert_allclose(found.parts[:, 0], detector.twin_score(rows) - usual[0], rtol=1e-6, atol=1e-9)
    own = -detector.beta_ * cosines / cosines.shape[1] - usual[1:]
    np.testing.assert_allclose(found.parts[:, 1:], own, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("training", ["balanced", "published"])
def test_r2ad2s_parts_are_layers_at_checkpoints(training):
    detector = ag.R2AD2(
        checkpoints=2, epochs=3, training=training, columns=training == "balanced", random_state=0
    )
    detector.fit(NORMAL)
    found = detector.explain(3 * NORMAL[:2])
    layers = detector.targets_[0].layers
    expected = [f"checkpoint {moment}, {layer}" for moment in (1, 2) for layer in layers]
    assert list(found.part_names) == expected + (["columns"] if training == "balanced" else [])
    assert np.isfinite(found.parts).all()
    assert np.abs(found.parts).max() > 0


def test_a_categorys_levels_are_one_column_with_an_expected_level():
    n = 200
    kind = np.array(["a", "b"])[np.arange(n) % 2]
    frame = pl.DataFrame({"size": np.where(kind == "a", 1.0, 9.0) + 0.1 * RNG.normal(size=n), "kind": kind})
    detector = ag.GradNeighbours(epochs=30, random_state=0).fit(frame)
    odd = pl.DataFrame({"size": [1.0], "kind": ["b"]})
    found = detector.explain(odd, normal=frame)
    assert found.names == ("size", "kind")
    assert found.features.shape == (1, 2)
    name, expected, share = found.top(0, 1)[0]
    assert share > 0
    assert (name, expected) in (("kind", "a"), ("size", pytest.approx(9, abs=1)))


def test_images_are_explained_pixel_by_pixel():
    images = np.clip(0.5 + 0.1 * RNG.normal(size=(60, 1, 8, 8)), 0, 1).astype(np.float32)
    detector = ag.GradScoreTest(epochs=5, random_state=0).fit(images)
    odd = images[:2].copy()
    odd[0, 0, :4, :4] = 1.0
    found = detector.explain(odd)
    assert found.features.shape == (2, 1, 8, 8)
    corner = found.features[0, 0, :4, :4].sum()
    assert corner > 0.5 * np.clip(found.features[0], 0, None).sum()
    assert found.names == ()
    for patch in (0, 2.5, "a", True):
        with pytest.raises(ValueError, match=f"patch={patch!r}: a side of 1 pixel or more is wanted"):
            detector.explain(odd, patch=patch)


def test_a_network_that_does_not_reconstruct_wants_normal_rows():
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    target = ag.Target.adopt(net, loss="uniform", layers="2.weight")
    rows = NORMAL.astype(np.float32)
    detector = ag.GradDensity(target=target, random_state=0).fit(rows)
    with pytest.raises(ValueError, match=r"give normal rows, detector.explain\(X, normal=X_train\)"):
        detector.explain(rows[:2])
    assert detector.explain(rows[:2], normal=rows).features.shape == (2, 5)


def test_rows_of_integers_cannot_be_put_right():
    net = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 3))
    target = ag.Target.adopt(net, loss="uniform", layers="2.weight")
    rows = RNG.integers(0, 10, size=(40, 3))
    detector = ag.GradDensity(target=target, random_state=0).fit(rows)
    with pytest.raises(ValueError, match="only rows of real numbers can be explained"):
        detector.explain(rows[:2])


def test_a_loaded_detector_explains_alike(tmp_path):
    detector = ag.GradSubspace(**FAST).fit(NORMAL)
    detector.save(tmp_path / "model")
    before, after = (one.explain(2 * NORMAL[:3]) for one in (detector, ag.load(tmp_path / "model")))
    np.testing.assert_array_equal(before.features, after.features)
    np.testing.assert_array_equal(before.parts, after.parts)


def test_a_far_off_cell_does_not_choose_the_nearest_row():
    detector = ag.GradCon(epochs=3, random_state=0).fit(NORMAL)
    rows = NORMAL[[7, 50, 90]].copy()
    rows[:, 0] = 1e8  # what some write for an empty cell
    expected = detector.explain(rows, normal=NORMAL).expected.astype(float)
    np.testing.assert_allclose(expected[:, 1:], NORMAL[[7, 50, 90], 1:], atol=1e-5)


def test_a_column_that_does_nothing_but_for_rounding_is_no_reason():
    shares = np.array([[0.5, 1e-14, -0.2, 0.1]])
    nothing = np.zeros((1, 4))
    found = Explanation(nothing[:, 0], shares, ("a", "b", "c", "d"), nothing, nothing[:, :1], ("x",))
    assert [name for name, *_ in found.top(0)] == ["a", "d"]


@pytest.mark.parametrize("kind", [ag.GradDensity, ag.GradCon, ag.R2AD2])
@pytest.mark.parametrize("slip", [1.5, 100, 1e6])
def test_what_is_expected_of_a_row_with_a_slip_is_what_normal_rows_hold(kind, slip):
    """Of a cell far out an autoencoder makes something far out in all columns."""
    normal = np.column_stack([NORMAL, np.full(len(NORMAL), 7.0)])
    detector = kind(**FAST).fit(normal)
    rows = normal[:3].copy()
    rows[:, 1] = normal[:, 1].max() * slip
    found = detector.explain(rows)
    expected = np.asarray(found.expected, dtype=np.float64)
    margin = 1e-5 * np.ptp(normal, axis=0)
    assert (expected >= normal.min(0) - margin).all()
    assert (expected <= normal.max(0) + margin).all()
    if slip >= 100:
        assert [found.top(i, 1)[0][0] for i in range(3)] == ["1"] * 3
