"""Gradients on one scale, and their distance from those of normal rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anograd import spectrum
from anograd.alarm.standard import RIDGE, Novelty, Standard
from anograd.train import seeded

with seeded(0):
    # Entries whose sizes differ by ten powers of ten, some of them far from zero.
    SCALES = 10.0 ** torch.linspace(-6, 4, 15)
    GRADIENTS = SCALES * (torch.randn(80, 15) + torch.tensor([0.0, 1.0, 50.0, -3.0, 0.0] * 3))
    MIX = torch.randn(12, 12, dtype=torch.float64)
    FEATURES = torch.randn(200, 12, dtype=torch.float64) @ MIX + 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 79), max_size=6, unique=True))
def test_pieces_give_mean_and_spread_of_all_rows(cuts: list[int]) -> None:
    standard = Standard(15)
    standard.fit(torch.tensor_split(GRADIENTS, sorted(cuts)))
    expected = GRADIENTS.double()
    torch.testing.assert_close(standard.mean, expected.mean(0).float(), rtol=1e-5, atol=1e-9)
    spread = expected.std(0, correction=0)
    torch.testing.assert_close(
        standard.spread, spread.clamp_min(1e-6 * spread.max()).float(), rtol=1e-4, atol=0
    )


def test_features_are_signed_logarithms_of_standard_units() -> None:
    standard = Standard(15)
    standard.fit([GRADIENTS])
    units = torch.tensor([-100.0, -1.0, 0.0, 1.0, 1e6])
    found = standard(standard.mean + units[:, None] * standard.spread)
    assert found.shape == (5, 15)
    expected = units.sign() * (1 + units.abs()).log()
    torch.testing.assert_close(
        found[[0, 1, 3, 4]], expected[[0, 1, 3, 4], None].expand(4, 15), rtol=1e-3, atol=1e-3
    )
    assert not found[2].any()


def test_each_entry_has_a_scale_of_its_own() -> None:
    standard = Standard(2)
    standard.fit([torch.tensor([[0.0, 0.0], [2.0, 200.0]])])
    assert standard.mean.tolist() == [1, 100]
    assert standard.spread.tolist() == [1, 100]


def test_constant_entries_do_not_divide_by_zero() -> None:
    constant = GRADIENTS.clone()
    constant[:, 7], constant[:, 14] = 0.0, 7e4
    standard = Standard(15)
    standard.fit(constant.split(7))
    assert torch.isfinite(standard(constant)).all()
    assert standard(constant)[:, 7].abs().max() == 0
    moved = constant[:1].clone()
    moved[0, 7] = 1.0
    assert 1 < standard(moved)[0, 7] < 20  # tells, and not infinitely much
    nothing = Standard(15)
    nothing.fit([torch.zeros(9, 15)])
    assert torch.isfinite(nothing(GRADIENTS)).all()
    assert not nothing(torch.zeros(2, 15)).any()


def test_one_row_is_enough() -> None:
    standard = Standard(15)
    standard.fit([GRADIENTS[:1]])
    assert torch.equal(standard.mean, GRADIENTS[0])
    assert torch.isfinite(standard(GRADIENTS)).all()


def novelty(kept: int | None = None) -> Novelty:
    found = Novelty(12).double()
    if kept is not None:
        found.directions, found.precision = found.directions[:, :kept], found.precision[:kept]
    found.fit(FEATURES.split(33))
    return found


def brute_force(x: Tensor, covariance: Tensor, mean: Tensor) -> Tensor:
    count = len(mean)
    ridge = RIDGE * torch.trace(covariance) / count * torch.eye(count, dtype=torch.float64)
    centred = x - mean
    return ((centred @ torch.linalg.inv(covariance + ridge)) * centred).sum(1).div(count).log()


def test_the_distance_is_mahalanobis_with_a_ridge() -> None:
    x = torch.cat([FEATURES[:20], 10 * FEATURES[:20]])
    covariance = torch.cov(FEATURES.T, correction=0)
    torch.testing.assert_close(
        novelty()(x), brute_force(x, covariance, FEATURES.mean(0)), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("kept", [1, 4, 11])
def test_what_is_not_kept_counts_in_one_common_unit(kept: int) -> None:
    variance, axes = torch.linalg.eigh(torch.cov(FEATURES.T, correction=0))
    tail = variance[: 12 - kept].mean()
    flat = torch.where(torch.arange(12) < 12 - kept, tail, variance)
    x = torch.cat([FEATURES[:20], 10 * FEATURES[:20]])
    expected = brute_force(x, axes @ torch.diag(flat) @ axes.T, FEATURES.mean(0))
    found = novelty(kept)
    assert found.directions.shape == (12, kept)
    torch.testing.assert_close(found(x), expected, rtol=1e-9, atol=1e-9)
    assert (found(x) - novelty()(x)).abs().max() > 1e-3 or kept == 11


def test_what_comes_after_its_features_is_left_aside() -> None:
    """Columns of the row follow the gradients; the novelty is the gradients' own."""
    with seeded(2):
        columns = 1e3 * torch.randn(200, 4, dtype=torch.float64)
    wide = Novelty(12).double()
    wide.fit(torch.cat([FEATURES, columns], dim=1).split(33))
    assert {name: value.shape for name, value in wide.state_dict().items()} == {
        name: value.shape for name, value in novelty().state_dict().items()
    }
    assert all(torch.equal(value, novelty().state_dict()[name]) for name, value in wide.state_dict().items())
    x = torch.cat([FEATURES, -columns], dim=1)
    assert torch.equal(wide(x), novelty()(FEATURES))
    assert torch.equal(wide(FEATURES), novelty()(FEATURES))


def test_many_features_keep_128_directions() -> None:
    wide = Novelty(300)
    with seeded(0):
        rows = torch.randn(160, 300)
    wide.fit([rows])
    assert wide.directions.shape == (300, 128)
    torch.testing.assert_close(wide.directions.T @ wide.directions, torch.eye(128), rtol=0, atol=1e-4)
    assert wide(rows).max() < wide(rows * 3).min()


def test_fewer_rows_than_directions() -> None:
    """What no row has part in counts as one over the ridge, whether a direction says so or not."""
    wide = Novelty(300).double()
    with seeded(0):
        rows = torch.randn(64, 300, dtype=torch.float64)
    wide.fit(rows.split(10))
    assert wide.directions.shape == (300, 128)
    assert not wide.directions[:, 64:].any()
    x, covariance = 3 * rows.flip(1), torch.cov(rows.T, correction=0)
    torch.testing.assert_close(wide(x), brute_force(x, covariance, rows.mean(0)), rtol=1e-9, atol=1e-9)


def test_farther_along_a_direction_is_more_novel() -> None:
    one, steps = novelty(4), torch.linspace(0, 30, 60, dtype=torch.float64)
    with seeded(1):
        directions = torch.randn(10, 12, dtype=torch.float64)
    for direction in directions:
        found = one(FEATURES.mean(0) + steps[:, None] * direction)
        assert (found.diff() > 0).all()


def test_a_row_stands_for_itself_and_constant_features_are_finite() -> None:
    one = novelty(4)
    torch.testing.assert_close(one(FEATURES)[5:6], one(FEATURES[5:6]), rtol=1e-12, atol=1e-12)
    still = Novelty(12)
    still.fit([torch.ones(30, 12)])
    assert torch.isfinite(still(FEATURES.float())).all()
    assert torch.isfinite(still(torch.ones(1, 12))).all()


def test_kinds_of_entries_do_not_share_a_scale() -> None:
    """An entry that hardly moves is floored by its own kind, whatever the size of the others."""
    rows = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1e-7, 1.0, 1.0, 1e6]
    )
    alone, beside = Standard(3), Standard(3, 1)
    alone.fit([rows[:, :3]])
    beside.fit([rows])
    torch.testing.assert_close(beside.spread[:3], alone.spread, rtol=0, atol=0)
    assert beside.spread[3] > 1e5


def test_long_features_are_read_off_a_sample_as_off_the_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    test = 3 * torch.randn(50, 12, generator=generator)
    whole, sampled = Novelty(12), Novelty(12)
    whole.fit([rows])
    monkeypatch.setattr(spectrum, "MOST_FEATURES", 8)
    few = Novelty(12)
    few.fit([rows[:5]])  # fewer rows than directions
    assert torch.isfinite(few(test)).all()
    monkeypatch.setattr(spectrum, "MOST_FEATURES", 11)
    monkeypatch.setattr(spectrum, "SAMPLE", 300)
    sampled.fit(torch.split(rows, 100))
    torch.testing.assert_close(sampled(test), whole(test), rtol=1e-4, atol=1e-4)
