import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anograd.decide import Calibration, size_of_calibration

# Few distinct values, so that ties between and within the two sets are common.
SCORES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=30)
RATES = st.sampled_from([0.01, 0.05, 0.1, 0.29, 0.5, 0.9])


@given(normal=SCORES, new=SCORES)
def test_p_values_equal_the_definition(normal, new):
    expected = [(1 + sum(c >= s for c in normal)) / (len(normal) + 1) for s in new]
    np.testing.assert_array_equal(Calibration(np.array(normal)).p_values(new), expected)


@given(normal=SCORES, new=SCORES, size=st.sampled_from([1e-30, 1.0, 1e30]), noise=st.floats(-1, 1))
def test_a_score_that_rounding_moved_is_a_tie(normal, new, size, noise):
    """By a few units in the last place of a float32, of the score or of the normal ones."""
    exact = size * np.array(normal)
    moved = size * np.array(new) + 5e-7 * noise * np.maximum(size * np.abs(new), np.median(np.abs(exact)))
    calibration = Calibration(exact)
    np.testing.assert_array_equal(calibration.p_values(moved), calibration.p_values(size * np.array(new)))
    alarms = calibration.detect(moved, budget=len(new))
    np.testing.assert_array_equal(alarms, np.array(new) > min(normal + new))


@given(normal=SCORES, new=SCORES, alpha=RATES)
@pytest.mark.filterwarnings("ignore:alpha")
def test_threshold_and_detect_agree(normal, new, alpha):
    calibration = Calibration(np.array(normal))
    alarms = calibration.detect(new, alpha=alpha)
    np.testing.assert_array_equal(alarms, np.array(new) > calibration.threshold(alpha))
    np.testing.assert_array_equal(alarms, calibration.p_values(new) <= alpha)


def test_a_rate_of_all_but_one_alarms_all():
    calibration = Calibration(np.arange(19.0))
    rate = 1 - 1e-10
    assert calibration.detect([5.0, -3.0], alpha=rate).all()
    assert calibration.threshold(rate) == -np.inf


def test_every_level_is_its_own_threshold():
    for m in (1, 19, 99, 100, 199):
        calibration = Calibration(np.arange(float(m)))
        for k in range(1, m + 1):
            assert calibration.threshold(k / (m + 1)) == calibration.ceilings[m - k]
            assert calibration.ceilings[m - k] == pytest.approx(m - k, rel=1e-6, abs=1e-6 * m)


@given(normal=SCORES, new=SCORES, fdr=st.sampled_from(["0.05", "0.1", "0.15", "0.25", "0.29", "0.3", "0.9"]))
@example(normal=list(range(1, 20)), new=[99, 0, 0], fdr="0.15")
@example(normal=list(range(1, 20)), new=[99, 99, 0, 0, 0, 0], fdr="0.15")
@pytest.mark.filterwarnings("ignore:fdr")
def test_fdr_equals_the_step_up_procedure(normal, new, fdr):
    """In fractions, since at the level itself a product of floats may lie above it."""
    p = [Fraction(1 + sum(c >= s for c in normal), len(normal) + 1) for s in new]
    ranked = sorted(p)
    passing = [k for k in range(1, len(p) + 1) if ranked[k - 1] * len(p) / k <= Fraction(fdr)]
    expected = [bool(passing) and one <= ranked[passing[-1] - 1] for one in p]
    found = Calibration(np.array(normal, dtype=float)).detect(new, fdr=float(fdr))
    np.testing.assert_array_equal(found, expected)


@given(normal=SCORES, new=SCORES, budget=st.integers(0, 40))
def test_budget_takes_the_highest_and_never_more(normal, new, budget):
    alarms = Calibration(np.array(normal)).detect(new, budget=budget)
    values = np.array(new)
    assert alarms.sum() == min(budget, (values > min(normal + new)).sum())
    if alarms.any() and not alarms.all():
        assert values[alarms].min() >= values[~alarms].max()


def test_budget_breaks_ties_by_row():
    alarms = Calibration(np.zeros(5)).detect([2.0, 3.0, 3.0, 3.0], budget=2)
    np.testing.assert_array_equal(alarms, [False, True, True, False])


def test_false_alarm_rate_is_exact_for_exchangeable_scores():
    rng = np.random.default_rng(0)
    alarms, draws = 0, 20_000
    for scores in rng.normal(size=(draws, 20)):
        alarms += int(Calibration(scores[:19]).detect(scores[19:], alpha=0.05)[0])
    spread = np.sqrt(0.05 * 0.95 / draws)
    assert abs(alarms / draws - 0.05) < 4 * spread


@pytest.mark.parametrize("rule", [{"alpha": 0.2}, {"fdr": 0.2}, {"budget": 3}, {}])
@pytest.mark.filterwarnings("ignore:fdr")
def test_constant_scores_raise_no_alarm(rule):
    assert not Calibration(np.full(99, 0.5)).detect(np.full(10, 0.5), **rule).any()


@pytest.mark.parametrize("rule", [{"alpha": 0.2}, {"fdr": 0.2}, {"budget": 3}])
def test_one_row_and_no_row(rule):
    calibration = Calibration(np.arange(99.0))
    np.testing.assert_array_equal(calibration.detect([1000.0], **rule), [True])
    assert calibration.detect([], **rule).shape == (0,)


def test_alpha_is_the_default_rule():
    calibration = Calibration(np.arange(19.0))
    np.testing.assert_array_equal(calibration.detect([18.0, 18.5]), [False, True])


def test_infinite_scores_are_ordered():
    calibration = Calibration(np.array([0.0, np.inf, 1.0]))
    np.testing.assert_array_equal(calibration.p_values([np.inf, 2.0, -np.inf]), [0.5, 0.5, 1.0])


def test_calibration_is_sorted_and_frozen():
    mine = np.array([3.0, 1.0, 2.0])
    calibration = Calibration(mine)
    np.testing.assert_array_equal(calibration.scores, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(mine, [3.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        calibration.scores[0] = 0.0


def test_too_few_calibration_rows_warn():
    calibration = Calibration(np.arange(9.0))
    with pytest.warns(
        UserWarning, match=r"m = 9 calibration rows the smallest p value is 0.1; .*calibrate\("
    ):
        assert not calibration.detect([99.0], alpha=0.05).any()
    assert calibration.threshold(0.05) == np.inf
    with pytest.warns(UserWarning, match="it needs more of them"):
        assert not calibration.detect([99.0], fdr=0.05).any()
    with pytest.warns(UserWarning, match="at least 4 of the 10 rows above all of them"):
        assert not calibration.detect([99.0] * 3 + [0.0] * 7, fdr=0.25).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert calibration.detect([99.0] * 4 + [0.0] * 6, fdr=0.25).sum() == 4


def test_without_calibration_rows_every_p_value_is_one():
    np.testing.assert_array_equal(Calibration(np.empty(0)).p_values([1.0, 2.0]), [1.0, 1.0])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"alpha": 0.1, "fdr": 0.1}, "alpha=0.1 and fdr=0.1 were given; one of"),
        ({"alpha": 0.0}, "alpha=0.0 was given; a rate between 0 and 1"),
        ({"alpha": 1.0}, "between 0 and 1"),
        ({"alpha": float("nan")}, "between 0 and 1"),
        ({"alpha": "0.05"}, "alpha='0.05' was given"),
        ({"fdr": 5}, "fdr=5 was given"),
        ({"fdr": [0.1]}, r"fdr=\[0.1\] was given"),
        ({"budget": -1}, "budget=-1 was given; a number of rows"),
        ({"budget": 0.5}, "budget=0.5"),
        ({"budget": True}, "budget=True"),
    ],
)
def test_bad_rules_are_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        Calibration(np.arange(99.0)).detect([1.0], **rule)


def test_nan_and_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="scores hold NaN at row 1"):
        Calibration(np.arange(9.0)).p_values([0.0, np.nan])
    with pytest.raises(ValueError, match="calibration scores hold NaN"):
        Calibration(np.array([np.nan]))
    with pytest.raises(ValueError, match=r"shape \(2, 1\)"):
        Calibration(np.arange(9.0)).p_values([[0.0], [1.0]])


@given(n=st.integers(2, 5000), share=st.floats(0.01, 0.99))
@settings(max_examples=300)
def test_size_of_calibration_meets_the_usual_levels(n, share):
    m = size_of_calibration(n, share)
    assert 1 <= m <= n - 1
    if share * n >= 20:
        assert (m + 1) % 20 == 0
        assert share * n - 20 <= m <= share * n + 1e-9  # 0.35 * 340 is a little less than 119


def test_size_of_calibration_in_small():
    assert [size_of_calibration(n, 0.2) for n in (2, 10, 95, 100, 1000)] == [1, 2, 19, 19, 199]
    with pytest.raises(ValueError, match="1 sample of normal data given; at least 2"):
        size_of_calibration(1, 0.2)
    with pytest.raises(ValueError, match=r"share=1.5 was given"):
        size_of_calibration(100, 1.5)


@given(
    scores=st.lists(st.floats(-1e6, 1e6), min_size=20, max_size=60, unique=True).filter(
        lambda many: min(np.diff(np.sort(many)) / np.maximum(np.abs(np.sort(many)[1:]), 1e-300)) > 1e-3
    ),
    seed=st.integers(0, 99),
    noise=st.floats(-1, 1),
)
def test_rows_calibrated_with_are_known_again_among_others(scores, seed, noise):
    """In any order, among others, and up to rounding."""
    rng = np.random.default_rng(seed)
    calibration = Calibration(np.array(scores))
    given = np.concatenate([scores, rng.normal(size=200)]) * (1 + 5e-7 * noise)
    assert calibration.within(rng.permutation(given))
    assert not calibration.within(given[: len(scores) // 2])


@pytest.mark.parametrize("n", [100, 1_000, 100_000])
def test_new_rows_are_not_taken_for_known_ones(n):
    rng = np.random.default_rng(n)
    calibration = Calibration(rng.gamma(2, size=999))
    assert not calibration.within(rng.gamma(2, size=n))
    assert not Calibration(rng.gamma(2, size=999).astype(np.float32)).within(rng.gamma(2, size=n))


def test_scores_that_many_rows_share_tell_nothing():
    rng = np.random.default_rng(0)
    own = rng.integers(0, 50, 500).astype(float)
    assert not Calibration(own).within(own)
    assert not Calibration(np.array([np.inf, *range(10)])).within([np.inf, *range(10)])


def test_a_large_file_that_holds_the_rows_of_the_fit_is_known():
    everything = np.random.default_rng(0).gamma(2, size=300_000)
    assert Calibration(everything[:59_999]).within(everything)


@given(st.integers(1, 200), st.integers(1, 99))
def test_a_rate_that_rounding_made_smaller_counts_as_the_rate(m, percent):
    normal, new = Calibration(np.arange(float(m))), np.arange(m + 1.0)
    rate = 1 - (1 - percent / 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a rate that no score reaches
        np.testing.assert_array_equal(normal.detect(new, alpha=rate), normal.detect(new, alpha=percent / 100))
    assert normal.threshold(rate) == normal.threshold(percent / 100)


def test_a_rate_in_single_precision_is_compared_as_it_is():
    """A float32 of 0.01 is a little less, so that of 99 rows none can reach it, and a warning says so."""
    calibration = Calibration(np.arange(99.0))
    with pytest.warns(UserWarning, match=r"alpha=0.01 raises no alarm"):
        assert not calibration.detect([1e3], alpha=np.float32(0.01)).any()
    assert calibration.detect([1e3], alpha=np.float32(0.02)).all()


def test_a_rate_next_to_nothing_is_out_of_reach():
    with pytest.warns(UserWarning, match="it needs more of them"):
        assert not Calibration(np.arange(99.0)).detect([1e3], fdr=1e-320).any()
