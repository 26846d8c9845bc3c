"""Surprises on one scale, and the weight between two of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from anograd.alarm.fusion import (
    TOLERANCE,
    WEIGHTS,
    Floats,
    Surprise,
    beside,
    choose,
    ranking,
    surprises,
    try_weights,
)


def fitted(scores: Tensor) -> Surprise:
    surprise = Surprise()
    surprise.fit(scores)
    return surprise


def drawn(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape)


NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda number: round(number, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=40))
@example([0.0])
@example([5.0] * 40)
@example([0.0] * 39 + [1e6])
@example([-3.0] * 20 + [-2.999] * 20)
def test_strictly_increasing_and_continuous(scores: list[float]) -> None:
    """Also with ties and with one row: a finer step makes a smaller one, and none is zero."""
    normal = torch.tensor(scores, dtype=torch.float64)
    surprise = fitted(normal)
    spread = float(surprise.knots[-1] - surprise.knots[0])
    low, high = float(surprise.knots[0]) - spread, float(surprise.knots[-1]) + spread
    x = torch.linspace(low, high, 2001, dtype=torch.float64)
    found = surprise(x)
    assert torch.isfinite(found).all()
    assert (found.diff() > 0).all()
    # No jump at a knot: a thousandth of the distance between knots to either side.
    knots = surprise.knots
    step = 1e-3 * knots.diff().min()
    jumps = surprise(knots + step) - surprise(knots - step)
    steepest = max(float((surprise.values.diff() / knots.diff()).max()), float(surprise.slope), 0.5 / spread)
    assert jumps.max() <= 2.1 * step * steepest


def test_values_at_the_quantiles_are_one_minus_the_logarithm_of_what_lies_above() -> None:
    normal = torch.from_numpy(drawn(200_000))
    surprise = fitted(normal)
    for share in (0.0, 0.1, 0.5, 0.8, 0.9):
        at = normal.sort().values[int(share * len(normal))]
        assert float(surprise(at[None])) == pytest.approx(1 - np.log(1 - share), abs=0.03)


def test_the_tail_is_exponential_with_the_mean_excess_as_its_scale() -> None:
    exponential = torch.from_numpy(np.random.default_rng(0).exponential(4.0, 100_000))
    surprise = fitted(exponential)
    assert float(surprise.slope) == pytest.approx(1 / 4, rel=0.03)
    found = surprise(torch.tensor([20.0, 40.0, 1000.0]))
    torch.testing.assert_close(found, 1 + torch.tensor([5.0, 10.0, 250.0]).double(), rtol=0.05, atol=0)
    last = surprise.knots[-1]
    excess = (exponential[exponential >= last] - last).mean()
    torch.testing.assert_close(surprise.slope, 1 / excess)


def test_below_all_normal_scores_the_order_is_kept() -> None:
    surprise = fitted(torch.from_numpy(drawn(500)))
    found = surprise(torch.tensor([-1e6, -1e3, -10.0, float(surprise.knots[0])], dtype=torch.float64))
    assert (found.diff() > 0).all()
    assert 0.5 < found[0] < found[-1] == 1


def test_a_row_of_normal_scores_is_not_surprising_on_average() -> None:
    """Of an exponential scale the mean surprise is 2: one more than that of the least surprising."""
    normal = torch.from_numpy(drawn(5000))
    assert float(fitted(normal)(torch.from_numpy(drawn(5000, seed=1))).mean()) == pytest.approx(2, abs=0.1)


def test_it_is_a_state_dict() -> None:
    one, other = fitted(torch.from_numpy(drawn(50))), Surprise()
    other.load_state_dict(one.state_dict())
    x = torch.linspace(-5, 5, 100)
    assert torch.equal(one(x), other(x))


def weight_of(alarms: list[Any], novelties: tuple[Floats, list[Floats]], known: int) -> float:
    return choose([one | {"share": 0.5} for one in try_weights(alarms, novelties)], known)["weight"]


def chosen(separation: float, novel: float, known: int) -> float:
    """Weight for alarms and a novelty that set anomalies apart from 400 normal rows by so much."""
    normal, odd = drawn(400), drawn(known, seed=1) + separation
    novelty, novelty_odd = drawn(400, seed=2), drawn(known, seed=3) + novel
    return weight_of([(normal, odd)], (novelty, [novelty_odd]), known)


def test_a_novelty_that_is_noise_gets_no_weight_where_many_are_known() -> None:
    assert chosen(2.0, 0.0, 2000) == 0


def test_a_novelty_that_ranks_as_well_gets_all_it_can() -> None:
    assert chosen(8.0, 8.0, 400) == WEIGHTS[-1]
    normal, odd = drawn(400), drawn(400, seed=1) + 2
    assert weight_of([(normal, odd)], (normal, [odd]), 400) == WEIGHTS[-1]


def test_the_fewer_are_known_the_more_counts_as_nearly() -> None:
    """The same rankings, told to come from fewer and fewer known anomalies, enough for every weight."""
    normal, odd = drawn(400), drawn(100, seed=1) + 2
    novel = (drawn(400, seed=2), [drawn(100, seed=3) + 1.6])
    found = [weight_of([(normal, odd)], novel, known) for known in (100_000, 4000, 400)]
    assert found == sorted(found)
    assert found[0] < found[-1]


@pytest.mark.parametrize(
    ("known", "most"), [(1, 0.25), (12, 0.25), (24, 0.25), (25, 0.5), (50, 1), (120, 2), (400, 8)]
)
def test_a_handful_of_known_anomalies_gives_the_novelty_little_weight(known: int, most: float) -> None:
    """However well it ranks them: anomalies that hide among the normal rows may be of other kinds."""
    normal, odd = drawn(400), drawn(50, seed=1) + 2
    assert weight_of([(normal, odd)], (normal, [odd]), known) == most


def test_what_each_weight_would_give_is_told() -> None:
    normal, odd, usual, novel = drawn(400), drawn(9, seed=1) + 2, drawn(400, seed=2), drawn(9, seed=3)
    measured = try_weights([(normal, odd)] * 2, (usual, [novel] * 2))
    assert [one["weight"] for one in measured] == list(WEIGHTS)
    for one in measured:
        auroc, precision = ranking(normal + one["weight"] * usual, odd + one["weight"] * novel)
        assert one["auroc"] == pytest.approx(auroc)
        assert one["average_precision"] == pytest.approx(precision)


def tried(*found: tuple[float, float, float]) -> list[dict[str, float]]:
    """Weight, share and AUROC of each."""
    return [{"weight": w, "share": s, "auroc": a, "average_precision": 0.5} for w, s, a in found]


def test_of_what_ranks_nearly_as_well_the_most_novelty_is_taken_then_the_least_share() -> None:
    near = TOLERANCE / 100**0.5
    best, close, far = 0.95, 0.95 - 0.9 * near, 0.95 - 1.1 * near
    assert choose(tried((0, 0, best), (0, 0.5, far), (1, 0, far)), 100) == tried((0, 0, best))[0]
    assert choose(tried((0, 0, best), (0, 0.5, close), (1, 0, far)), 100) == tried((0, 0, best))[0]
    found = choose(tried((0, 0.5, best), (1, 0.5, best), (1, 0.25, close), (1, 0, far)), 100)
    assert found == tried((1, 0.25, close))[0]
    beyond = choose(tried((0, 0.5, close), (4, 0, best)), 100)  # which are no more than allow a weight of 2
    assert beyond == tried((0, 0.5, close))[0]


def test_surprises_of_others_are_on_the_scale_of_the_normal_ones() -> None:
    normal, others = torch.from_numpy(drawn(300)), torch.from_numpy(drawn(20, seed=1) + 1)
    found = surprises(normal, others)
    assert torch.equal(found[0], fitted(normal)(normal))
    assert torch.equal(found[1], fitted(normal)(others))


def test_a_forest_counts_four_times_as_much_as_the_networks_beside_it() -> None:
    forest, networks = torch.tensor([1.0, 5.0]), torch.tensor([6.0, 0.0])
    torch.testing.assert_close(beside(forest, networks), torch.tensor([2.0, 4.0]))


def test_ranking_is_scikit_learns() -> None:
    normal, odd = drawn(50).round(1), (drawn(7, seed=1) + 1).round(1)
    truth, scores = np.repeat([0, 1], [50, 7]), np.concatenate([normal, odd])
    assert ranking(normal, odd) == (roc_auc_score(truth, scores), average_precision_score(truth, scores))
