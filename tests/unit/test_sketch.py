from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from anograd import Sketch, Target, per_sample


@given(shape=st.lists(st.integers(1, 30), min_size=1, max_size=4), size=st.integers(1, 200))
@settings(deadline=None)
def test_a_sketch_keeps_at_most_size_numbers_and_small_parameters_whole(shape: list[int], size: int) -> None:
    whole = torch.Size(shape)
    p, q = Sketch(size).sides(whole)
    assert 1 <= p * q <= size or p * q == whole.numel() <= size
    if whole.numel() <= size:
        assert p * q == whole.numel()


def test_small_gradients_are_kept_as_they_are() -> None:
    target = Target.adopt(nn.Linear(3, 3), layers="*")
    x = torch.randn(4, 3)
    found = per_sample(target, x, ("full", "sketch"), sketch=Sketch(64))
    torch.testing.assert_close(found.sketch, found.full)


def test_lengths_are_kept_on_average_over_seeds() -> None:
    torch.manual_seed(0)
    target = Target.adopt(nn.Linear(30, 30), layers="weight")
    x = torch.randn(3, 30)
    truth = per_sample(target, x, ("norm",)).norm[:, 0].square()
    drawn = [per_sample(target, x, ("sketch",), sketch=Sketch(36, seed)).sketch for seed in range(400)]
    ratio = torch.stack(drawn).square().sum(2).mean(0) / truth
    torch.testing.assert_close(ratio, torch.ones(3), rtol=0.12, atol=0)


def test_a_parameters_sketch_depends_on_seed_and_name_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    x = torch.randn(2, 9)
    both = per_sample(Target.adopt(net, layers="*.weight"), x, ("sketch",), sketch=Sketch(16)).sketch
    second = per_sample(Target.adopt(net, layers="1.weight"), x, ("sketch",), sketch=Sketch(16)).sketch
    torch.testing.assert_close(both[:, 16:], second)
    other = per_sample(Target.adopt(net, layers="1.weight"), x, ("sketch",), sketch=Sketch(16, seed=1)).sketch
    assert not torch.allclose(other, second)


def test_a_sketch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="size=0"):
        Sketch(0)
