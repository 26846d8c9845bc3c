"""Statistics of a comparison agree with scipy, with published tables and with counting by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare, rankdata, t, wilcoxon

from anograd.bench import stats

grid = st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9])


def table(matrix):
    """Return rows of data sets as a table of detectors a, b, c, ..."""
    return {
        chr(97 + j): {f"set {i}": float(row[j]) for i, row in enumerate(matrix)}
        for j in range(len(matrix[0]))
    }


@st.composite
def matrices(draw, least_sets=1, least=2):
    k = draw(st.integers(least, 5))
    return draw(st.lists(st.lists(grid, min_size=k, max_size=k), min_size=least_sets, max_size=10))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=6))
def test_mean_has_the_interval_of_student(values):
    found = stats.mean(values)
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.value == pytest.approx(np.mean(values))
    assert found.half == pytest.approx(half, abs=1e-12)
    assert found.count == len(values)


def test_one_or_two_seeds_have_no_interval():
    assert stats.mean([0.7]) == stats.Mean(0.7, None, 1)
    assert stats.mean([0.75, 0.25]) == stats.Mean(0.5, None, 2, (0.25, 0.75))


@pytest.mark.parametrize("values", [[], [math.nan, 0.5], [math.inf]])
def test_a_mean_of_nothing_or_of_what_is_no_number_is_refused(values):
    with pytest.raises(ValueError, match="a mean wants finite values, at least one"):
        stats.mean(values)


def test_pooled_takes_its_interval_from_seeds_that_all_units_have():
    found = stats.pooled({"a": {0: 0.5, 1: 0.7, 2: 0.9}, "b": {0: 0.9, 1: 0.9}})
    assert found.value == pytest.approx((0.7 + 0.9) / 2)
    assert found.ends == pytest.approx((0.7, 0.8))
    assert found.count == 2
    every = stats.pooled({"a": {0: 0.5, 1: 0.7, 2: 0.9}, "b": {0: 0.9, 1: 0.9, 2: 0.9}})
    assert every.half == pytest.approx(stats.mean([0.7, 0.8, 0.9]).half)
    assert stats.pooled({"a": {0: 0.5}, "b": {1: 0.7}}) == stats.Mean(0.6, None, 0)


@given(matrices())
def test_ranks_are_those_of_scipy(matrix):
    expected = rankdata(-np.array(matrix), axis=1).mean(axis=0)
    assert list(stats.ranks(table(matrix)).values()) == pytest.approx(expected)


def test_incomplete_blocks_are_left_out_and_named():
    values = {"a": {"x": 0.5, "y": 0.9}, "b": {"x": 0.6, "z": 0.1}}
    assert stats.blocks(values) == (["x"], ["y", "z"])
    assert stats.ranks(values) == {"a": 2.0, "b": 1.0}
    assert stats.ranks({"a": {"x": 0.5}, "b": {"y": 0.5}}) == {}


@given(matrices(least_sets=2, least=3))
def test_friedman_is_that_of_scipy(matrix):
    if all(len(set(row)) == 1 for row in matrix):
        assert stats.friedman(table(matrix)) == 1.0
        return
    expected = friedmanchisquare(*np.array(matrix).T).pvalue
    assert stats.friedman(table(matrix)) == pytest.approx(expected)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12, unique=True), st.data())
def test_signed_rank_without_ties_is_that_of_scipy(sizes, data):
    signs = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=len(sizes), max_size=len(sizes)))
    differences = [size * sign / 1000 for size, sign in zip(sizes, signs, strict=True)]
    assert stats.signed_rank(differences) == pytest.approx(wilcoxon(differences, method="exact").pvalue)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_signed_rank_with_ties_counts_all_signs(differences):
    values = np.array([one for one in differences if one], dtype=float)
    placed = rankdata(np.abs(values))
    sums = [sum(r for r, s in zip(placed, signs, strict=True) if s)
            for signs in itertools.product((0, 1), repeat=len(values))]  # fmt: skip
    own = placed[values > 0].sum()
    tail = min(np.mean([one <= own for one in sums]), np.mean([one >= own for one in sums]))
    assert stats.signed_rank(differences) == pytest.approx(min(1.0, 2 * tail))


def test_no_difference_is_no_evidence():
    assert stats.signed_rank([]) == stats.signed_rank([0.0, 0.0]) == 1.0
    assert stats.signed_rank([0.1 + 0.2 - 0.3]) == 1.0  # rounding is no difference


def test_holm_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, each at least the one before it.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_wilcoxon_holm_is_corrected_for_the_number_of_others():
    rows = [[0.9, 0.1 + 0.01 * i, 0.3 + 0.02 * i] for i in range(7)]
    assert stats.wilcoxon_holm(table(rows), "a") == pytest.approx({"b": 2 * 2 / 2**7, "c": 2 * 2 / 2**7})


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_difference_has_the_published_quantiles(k, q):
    # Demšar (2006), table 5a.
    n = 30
    assert stats.critical_difference(k, n) / math.sqrt(k * (k + 1) / (6 * n)) == pytest.approx(q, abs=1e-3)


def test_critical_difference_of_one_detector_is_refused():
    with pytest.raises(ValueError, match="2 or more detectors on 1 or more data sets; got 1, 3"):
        stats.critical_difference(1, 3)


def test_cliques_are_the_longest_runs_without_a_difference():
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.01, size=(20, 5))
    rows = np.array([0.9, 0.898, 0.7, 0.699, 0.5]) + noise
    order = sorted(stats.ranks(table(rows)).items(), key=lambda item: item[1])
    found = stats.cliques(table(rows))
    assert [set(one) for one in found] == [{"a", "b"}, {"c", "d"}]
    assert [name for run in found for name in run] == [name for name, _ in order[:4]]


@given(matrices(least_sets=6))
def test_in_a_clique_no_two_differ_and_it_cannot_grow(matrix):
    values = table(matrix)
    placed = stats.ranks(values)
    order = sorted(placed, key=lambda name: placed[name])
    pairs = list(itertools.combinations(order, 2))
    p = stats.holm([stats.signed_rank([values[a][s] - values[b][s] for s in values[a]]) for a, b in pairs])
    alike = {pair for pair, value in zip(pairs, p, strict=True) if value >= 0.05}
    runs = [
        tuple(order[i:j]) for i in range(len(order)) for j in range(i + 2, len(order) + 1)
        if all(pair in alike for pair in itertools.combinations(order[i:j], 2))
    ]  # fmt: skip
    longest = [one for one in runs if not any(set(one) < set(other) for other in runs)]
    assert stats.cliques(values) == longest
