from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import beta
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from anograd import report
from anograd.evaluate import evaluate, ranking


def drawn(n: int = 400):
    draw = np.random.default_rng(0)
    odd = draw.random(n) < 0.1
    scores = draw.normal(size=n) + 2 * odd
    return scores, odd, scores > 1.5


def test_numbers_are_scikit_learns():
    scores, odd, alarms = drawn()
    found = evaluate(scores, odd, alarms)
    assert (found.normal, found.anomalous) == ((~odd).sum(), odd.sum())
    assert found.auroc == roc_auc_score(odd, scores)
    assert found.average_precision == average_precision_score(odd, scores)
    assert found.precision == precision_score(odd, alarms)
    assert found.recall == recall_score(odd, alarms)
    assert found.false_alarm_rate == alarms[~odd].mean()
    assert (found.alarms, found.found) == (alarms.sum(), (alarms & odd).sum())
    assert ranking(scores, odd) == (found.auroc, found.average_precision)


def test_the_interval_is_exact():
    scores, odd, alarms = drawn()
    found = evaluate(scores, odd, alarms)
    k, n = found.alarms - found.found, found.normal
    expected = beta.ppf([0.025, 0.975], [k, k + 1], [n - k + 1, n - k])  # Clopper and Pearson
    np.testing.assert_allclose(found.interval, expected)
    none = evaluate(scores, odd, np.zeros(len(odd), dtype=bool))
    assert none.interval[0] == 0
    assert none.precision is None
    assert (none.recall, none.false_alarm_rate) == (0, 0)


def test_labels_may_be_numbers():
    assert evaluate([1, 2, 3], [0, 0, 1], [0, 1, 1]) == evaluate([1, 2, 3], [False, False, True], [0, 1, 1])


@pytest.mark.parametrize(
    ("scores", "odd", "alarms", "said"),
    [
        ([1, 2], [0, 0], [0, 0], "all 2 rows are normal, and AUROC compares .*; give rows of both kinds"),
        ([1, 2], [1, 1], [0, 0], "all 2 rows are anomalous, .*anomaly_score"),
        ([], [], [], "all 0 rows are normal"),
        ([1, 2], [0, 1, 1], [0, 0], r"scores of shape \(2,\) and truth of shape \(3,\) were given"),
        ([1, 2], [0, 1], [0], r"alarms of shape \(1,\) were given for 2 rows; .*detector.detect\(X\)"),
    ],
)
def test_what_cannot_be_compared(scores, odd, alarms, said):
    with pytest.raises(ValueError, match=said):
        evaluate(scores, odd, alarms)


def test_lines_for_people():
    scores, odd, alarms = drawn()
    lines = dict(report.evaluation(evaluate(scores, odd, alarms), (0.5, 0.1), "alpha 0.05"))
    assert lines["AUROC"][0].endswith(" (0.5000 without gradients)")
    assert lines["average precision"][0].endswith(" (0.1000 without gradients)")
    assert lines["rule"] == ["alpha 0.05"]
    none = dict(report.evaluation(evaluate(scores, odd, odd & False), None, "alpha 0.05"))
    assert none["right alarms"] == ["none raised"]
    assert "without" not in none["AUROC"][0]


@pytest.mark.parametrize("codes", [[1, -1, 1], [0.0, float("nan"), 1.0], ["no", "yes", "no"]])
def test_other_codes_than_yes_and_no_are_refused(codes):
    """Each would count as True: a prediction in scikit-learn's code would be nothing but alarms."""
    with pytest.raises(ValueError, match=r"alarms holds other values .* values == -1"):
        evaluate([0.1, 0.2, 0.3], [True, False, False], codes)
    with pytest.raises(ValueError, match="the truth holds other values"):
        ranking([0.1, 0.2, 0.3], codes)


def test_plus_one_for_every_row_may_mean_no_alarm():
    with pytest.raises(ValueError, match=r"for every row, or for none .*detector\.predict\(X\) == -1"):
        evaluate([1.0, 2.0], [False, True], np.ones(2, dtype=int))
    assert evaluate([1.0, 2.0], [False, True], [True, True]).alarms == 2


def test_an_infinite_score_has_a_rank():
    assert ranking([0.0, 1.0, np.inf, -np.inf], [False, False, True, False]) == (1.0, 1.0)


def test_a_score_that_is_no_number_has_no_rank():
    with pytest.raises(ValueError, match="score of row 2 is NaN"):
        ranking([0.1, 0.2, np.nan, 0.4], [0, 0, 1, 1])


def test_alarms_with_a_missing_one_are_refused():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="the truth holds other values"):
        evaluate([0.1, 0.2], pandas.array([True, pandas.NA], dtype="boolean"), [True, False])


def test_tensors_with_a_graph_are_taken_and_masked_arrays_are_not():
    scores, odd, alarms = drawn()
    given = torch.from_numpy(scores).requires_grad_()
    assert evaluate(given, torch.from_numpy(odd), torch.from_numpy(alarms)) == evaluate(scores, odd, alarms)
    for i, name in enumerate(("scores", "the truth", "alarms")):
        some = [scores, odd, alarms]
        some[i] = np.ma.masked_array(some[i], mask=np.arange(400) == 3)
        with pytest.raises(ValueError, match=f"{name} is a masked array, whose mask would be lost"):
            evaluate(*some)
