"""Rows that are nothing."""

from __future__ import annotations

import pytest
import torch

from anograd.alarm import noise
from anograd.train import seeded

with seeded(0):
    TABLE = torch.rand(40, 3) ** 2
    IMAGES = torch.rand(20, 2, 4, 5)


@pytest.mark.parametrize("kind", noise.KINDS)
@pytest.mark.parametrize("rows", [TABLE, IMAGES], ids=["table", "images"])
def test_shapes_and_seeds(kind: str, rows: torch.Tensor) -> None:
    draw = noise.make(kind, rows)
    with seeded(1):
        found, next_one = draw(7), draw(7)
    with seeded(1):
        again = draw(7)
    assert found.shape == (7, *rows.shape[1:])
    assert found.dtype == torch.float32
    assert torch.equal(found, again)
    assert not torch.equal(found, next_one)
    assert draw(1).shape == (1, *rows.shape[1:])


def test_gaussian_noise_has_the_published_moments_and_is_not_clipped() -> None:
    with seeded(0):
        found = noise.gaussian((3,))(100_000)
    assert found.mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.02)
    assert found.std(0).tolist() == pytest.approx([1.0] * 3, abs=0.02)
    assert found.min() < -2
    assert found.max() > 3


def test_noise_is_stretched_to_each_columns_range_and_to_one_range_of_images() -> None:
    drawn = torch.tensor([[0.0, 0.5, 1.0], [2.0, -1.0, 0.25]])
    rows = torch.tensor([[10.0, -4.0, 7.0], [20.0, 4.0, 7.0]])
    assert noise.stretched(drawn, rows).tolist() == [[10, 0, 7], [30, -12, 7]]
    images = torch.zeros(4, 1, 2, 2)
    images[:, :, 1, 1] = 255  # the others are black in every one
    assert noise.stretched(torch.full((1, 1, 2, 2), 0.5), images).flatten().tolist() == [127.5] * 4


def test_uniform_noise_fills_the_box() -> None:
    with seeded(0):
        found = noise.uniform((3,))(100_000)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.01)
    assert found.var(0).tolist() == pytest.approx([1 / 12] * 3, abs=0.01)


def test_permuted_noise_keeps_each_columns_values_and_breaks_rows_up() -> None:
    with seeded(0):
        found = noise.permuted(TABLE)(3000)
    for column in range(3):
        assert set(found[:, column].tolist()) == set(TABLE[:, column].tolist())
        torch.testing.assert_close(found[:, column].mean(), TABLE[:, column].mean(), rtol=0.05, atol=0.02)
    whole = (found[:, None] == TABLE).all(2).any(1).float().mean()
    assert 0.1 < whole < 0.5  # some are normal rows after all, since the share that is swapped is random
