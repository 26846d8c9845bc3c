"""The line that costs least: what it rests on, what it refuses, and that it is worth its labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from anograd.costs import Anomalies, least, pair
from anograd.decide import Calibration
from anograd.detectors import GradNeighbours, load
from anograd.evaluate import evaluate

NORMAL = np.random.default_rng(0).normal(size=999)
ODD = np.random.default_rng(1).normal(3, 1, size=50)


def line(costs, prevalence=0.05, odd=ODD) -> float:
    return Calibration(NORMAL, Anomalies(odd, prevalence)).line(costs)


def test_a_dearer_miss_or_more_anomalies_lower_the_line():
    lines = [line((1, miss)) for miss in (0.1, 1, 10, 100, 10_000)]
    assert lines == sorted(lines, reverse=True)
    assert lines[0] > lines[2] > lines[-1] == -np.inf  # in the end all rows raise an alarm
    assert line((1, 10), 0.001) > line((1, 10), 0.05) > line((1, 10), 0.5)


def test_only_the_ratio_of_the_costs_counts():
    assert line((1, 50)) == line((0.02, 1)) == line("2:100")


def test_the_line_is_where_densities_say_that_it_is():
    """Of two normal densities 3 apart the best line is 1.5 + log(odds) / 3."""
    rng = np.random.default_rng(2)
    normal, odd = rng.normal(size=200_000), rng.normal(3, 1, size=20_000)
    for costs, prevalence in (((1, 1), 0.5), ((1, 10), 0.05), ((1, 50), 0.01)):
        best = 1.5 + np.log(costs[0] * (1 - prevalence) / (costs[1] * prevalence)) / 3
        found = Calibration(normal, Anomalies(odd, prevalence)).line(costs)
        assert found == pytest.approx(best, abs=0.15)


def test_a_handful_of_high_anomalies_does_not_hide_that_others_may_be_low():
    few = np.full(10, 9.0)  # all above all normal rows
    assert line((1, 1), 0.05, few) > NORMAL.max()  # cheap misses: right below the known ones
    assert line((1, 10_000), 0.05, few) < np.quantile(NORMAL, 0.5)


def test_where_alarms_do_not_pay_none_is_raised():
    """Of 59 normal rows none lies above most anomalies, yet one in sixty to come may."""
    rng, spent = np.random.default_rng(1), []
    for _ in range(100):
        known = Calibration(rng.normal(size=59), Anomalies(rng.normal(2.5, 1, 50), 0.002))
        line = known.line((1, 1))
        spent.append(0.998 * norm.sf(line) + 0.002 * norm.cdf(line - 2.5))
    assert np.mean(spent) <= 1.01 * 0.002  # what no alarm at all would cost
    with pytest.warns(UserWarning, match=r"costs=\(1, 1\) raises no alarm: .* of 0\.002 and by m = 59 cal"):
        assert not known.detect([9.0], costs=(1, 1)).any()
    assert known.detect([9.0], costs=(1, 500)).all()


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40), st.floats(0.1, 99))
def test_no_threshold_costs_less_than_the_least(rows, miss):
    scores = np.array([score for score, _ in rows], dtype=float)
    odd = np.array([truth for _, truth in rows])
    found = [
        (alarms & ~odd).sum() + miss * (~alarms & odd).sum()
        for alarms in (scores > line for line in [-np.inf, *scores])
    ]
    assert least(scores, odd, (1, miss)) == pytest.approx(min(found))


def test_cost_of_an_evaluation():
    found = evaluate([0.1, 0.9, 0.2, 0.3], [False, True, False, True], [False, True, True, False])
    assert found.cost((1, 50)) == 51


@pytest.mark.parametrize(
    "costs", [(1,), (1, 0), (1, -2), "1", "1:x", 5, (1, np.inf), (1e308, 1e308), ("1", "2"), "1:2:3"]
)
def test_costs_that_are_none(costs):
    with pytest.raises(ValueError, match=r"two numbers above 0, 1e100 at most: costs=\(1, 50\)"):
        pair(costs)


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match=r"costs need known anomalies.*calibrate\(normal_rows, anomalies="):
        Calibration(NORMAL).detect(NORMAL, costs=(1, 50))
    with pytest.raises(ValueError, match=r"9 known anomalies were given.*at least 10 are wanted"):
        Anomalies(ODD[:9], 0.1)
    with pytest.raises(ValueError, match="prevalence=1 was given; the share of anomalies"):
        Anomalies(ODD, 1)
    with pytest.raises(ValueError, match="one of alpha, fdr, budget and costs is wanted"):
        Calibration(NORMAL, Anomalies(ODD, 0.1)).detect(NORMAL, alpha=0.1, costs=(1, 2))


def test_a_detector_keeps_what_it_knows_of_anomalies_until_it_is_fitted_anew(tmp_path):
    rng = np.random.default_rng(0)
    normal, odd, new = (
        rng.normal(size=(120, 3)),
        rng.normal(4, 1, size=(12, 3)),
        rng.normal(1, 2, size=(40, 3)),
    )
    detector = GradNeighbours(epochs=2, random_state=0).fit(normal[:80])
    with pytest.raises(ValueError, match="nothing was given to calibrate with"):
        detector.calibrate()
    with pytest.raises(ValueError, match="anomalies alone do not tell how common they are"):
        detector.calibrate(anomalies=odd)
    p = detector.p_values(new)
    detector.calibrate(anomalies=odd, prevalence=0.01)
    np.testing.assert_array_equal(detector.p_values(new), p)  # normal rows are as before
    detector.calibrate(normal[80:], anomalies=odd)
    assert detector.calibration_.anomalies.prevalence == pytest.approx(12 / 52)
    alarms = detector.detect(new, costs=(1, 5))
    assert 0 < alarms.sum() < len(new)
    detector.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").detect(new, costs=(1, 5)), alarms)
    assert detector.calibrate(normal[90:]).calibration_.anomalies is not None
    assert detector.fit(normal[:80]).calibration_.anomalies is None


def test_known_anomalies_of_infinite_score_raise_alarms():
    known = Anomalies(np.full(20, np.inf), 0.1)
    calibration = Calibration(NORMAL, known)
    for costs in ((1, 1), (1, 10), (1, 50)):
        assert calibration.detect([np.inf, NORMAL.min() - 1], costs=costs).tolist()[0]


def test_a_prevalence_that_is_no_number():
    with pytest.raises(ValueError, match="prevalence='a' was given; the share of anomalies"):
        Anomalies(ODD, "a")


def test_alarms_for_all_rows_are_among_the_lines():
    assert least([-np.inf, -np.inf, 1.0], [True, True, False], (1, 50)) == 1.0
