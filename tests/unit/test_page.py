"""What a page counts and draws: thresholds, p values, chunks, curves with intervals, charts."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from anograd.decide import Calibration
from anograd.evaluate import ranking
from anograd.page import Card, Scored, charts, page
from anograd.page.curves import RATES, RECALLS, compare
from anograd.page.scored import agreement, chunks, levels, p_values, share
from anograd.page.why import PIXELS, Column, Reason, _columns, _pictures, _smaller

CARD = Card(
    data="x.csv", data_sum=None, folder="model", detector="GradCon", twin="reconstruction error",
    written="today", described=[("rows", ["a"]), ("normal rows", ["b"]), ("calibration", ["c"])],
)  # fmt: skip


def scored(n=400, m=199, rule=None, odd=40, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.arange(n) >= n - odd
    scores = rng.normal(size=n) + 2.5 * truth
    calibration = Calibration(rng.normal(size=m))
    rule = rule or {"alpha": 0.05}
    return Scored(
        scores=scores, p=calibration.p_values(scores), alarms=calibration.detect(scores, **rule), rule=rule,
        calibration=calibration, titles=[f"row {i}" for i in range(n)], odd=truth,
        twin=scores + rng.normal(size=n),
    )  # fmt: skip


def test_levels_agree_with_the_detector_and_name_what_is_out_of_reach():
    given = scored(m=99, rule={"alpha": 0.03})
    found = {one.alpha: one for one in levels(given)}
    assert 0.03 in found
    assert found[0.005].alarms is None
    assert found[0.05].alarms == given.calibration.detect(given.scores, alpha=0.05).sum()
    assert found[0.05].expected == pytest.approx(0.05 * 360)
    assert found[0.05].found == (given.calibration.detect(given.scores, alpha=0.05) & given.odd).sum()
    assert levels(replace(given, odd=None))[-1].expected == pytest.approx(0.2 * 400)


@pytest.mark.parametrize("m", [1, 7, 19, 199, 250])
def test_every_p_value_is_counted_once_and_expected_ones_are_even(m):
    given = scored(m=m, rule={"budget": 3})
    found = p_values(given)
    assert found.normal.sum() == 360
    assert found.odd.sum() == 40
    assert found.expected.sum() == pytest.approx(360)
    for i, (low, high) in enumerate(zip(found.edges[:-1], found.edges[1:], strict=True)):
        inside = (given.p > low + 1e-9) & (given.p <= high + 1e-9)
        assert found.normal[i] == (inside & ~given.odd).sum()
    assert (found.low <= found.high).all()


def test_the_band_holds_as_often_as_it_says():
    held = []
    for seed in range(200):
        found = p_values(scored(m=99, n=300, odd=0, seed=seed))
        held.append(1 - found.outside / len(found.normal))
    assert 0.93 < np.mean(held) < 0.99


@pytest.mark.parametrize("several", [2, 4, 12])
def test_the_band_holds_where_scores_are_equal_too(several):
    """As those of a table of categories, whose p values are the highest of those that equal scores share."""
    outside, tied = [], []
    for seed in range(100):
        drawn = np.random.default_rng(seed)
        calibration = Calibration(drawn.integers(several, size=99).astype(float))
        scores = drawn.integers(several, size=300).astype(float)
        given = Scored(
            scores=scores, p=calibration.p_values(scores), alarms=calibration.detect(scores, alpha=0.05),
            rule={"alpha": 0.05}, calibration=calibration, titles=[],
        )  # fmt: skip
        found = p_values(given)
        assert found.normal.sum() == 300
        outside.append(found.outside / len(found.normal))
        tied.append(found.tied)
    assert np.mean(outside) < 0.07
    assert np.median(tied) == 300
    assert p_values(scored(m=99)).tied == 0


def test_chunks_cover_all_rows_and_few_rows_are_not_compared():
    given = scored()
    found = chunks(given)
    assert len(found) == 20
    assert sum(one.low for one in found) == given.alarms.sum()
    assert [one.first for one in found[1:]] == [one.last + 1 for one in found[:-1]]
    assert found[-1].share[1] > given.alarms.mean()  # the anomalies are the last rows
    assert scored(m=9, rule={"budget": 1}).level == 0.1
    assert sum(one.low for one in chunks(scored(rule={"budget": 1}))) == given.alarms.sum()
    assert chunks(scored(n=9, odd=2)) == []
    assert share(0, 0) is None


def test_the_twin_agrees_with_itself():
    given = scored()
    same = agreement(replace(given, twin=given.scores))
    assert same.spearman == pytest.approx(1)
    assert same.same == same.alarms == given.alarms.sum()
    assert agreement(replace(given, twin=np.ones(400))).spearman is None
    assert agreement(replace(given, twin=None)) is None


@pytest.mark.parametrize("digits", [0, 8])  # with many ties, and without
def test_curves_are_those_of_scikit_learn_and_intervals_hold_them(digits):
    given = scored()
    values = given.scores.round(digits)
    found = compare(values, given.twin, given.odd)
    auroc, average_precision = ranking(values, given.odd)
    assert found.score.auroc.value == auroc
    assert found.score.average_precision.value == average_precision
    assert found.score.auroc.low < auroc < found.score.auroc.high
    assert found.score.average_precision.low < average_precision < found.score.average_precision.high
    rate, recall, _ = roc_curve(given.odd, values, drop_intermediate=False)
    np.testing.assert_allclose(found.score.roc.y, [recall[rate <= one].max() for one in RATES])
    precision, recall, _ = precision_recall_curve(given.odd, values)
    expected = [precision[:-1][recall[:-1] >= one - 1e-12][-1] for one in RECALLS]
    np.testing.assert_allclose(found.score.precision.y, expected)
    assert (found.score.roc.low <= found.score.roc.high).all()


def test_a_comparison_draws_the_same_rows_for_both_and_the_same_ones_again():
    given = scored()
    same = compare(given.scores, given.scores, given.odd)
    assert same.auroc == (0, 0, 0)
    one, two = (compare(given.scores, given.twin, given.odd, seed=3) for _ in range(2))
    assert one.auroc == two.auroc
    assert one.auroc.low > 0  # the twin is the score with noise
    assert one.auroc.value == one.score.auroc.value - one.twin.auroc.value


def drawn(given):
    found = p_values(given)
    curve = compare(given.scores, given.twin, given.odd)
    return {
        "scores": charts.scores(given.scores, given.odd, given.line),
        "p-values": charts.p_values(found),
        "roc": charts.roc(curve.score.roc, curve.twin.roc),
        "precision-recall": charts.precision_recall(curve.score.precision, None, 0.1),
        "drift": charts.drift(chunks(given), 0.1, 0.05),
    }


def test_charts_are_titled_coloured_by_the_page_and_share_no_names():
    given = scored()
    texts = drawn(given)
    assert texts == drawn(given)
    ids = []
    for name, text in texts.items():
        root = ElementTree.fromstring(text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
        assert root.find("{*}title").text
        assert root.get("aria-labelledby") == f"{name}-title"
        mine = re.findall(r'\bid="([^"]*)"', text)
        assert all(one.startswith(f"{name}-") for one in mine)
        assert set(re.findall(r'(?:url\(|href=")#([^")]*)', text)) <= set(mine)
        ids += mine
        colours = set(re.findall(r"(?:fill|stroke)[:=]\s*\"?([^;\"]*)", text))
        assert not [one for one in colours if one.startswith("#")]
        assert "http" not in text
    assert len(ids) == len(set(ids))
    assert "pattern" in texts["scores"]  # hatching


def test_scores_far_out_go_to_the_last_bar_and_nothing_is_lost():
    values = np.append(np.linspace(0, 1, 500), [1e6, np.inf])
    text = charts.scores(values, None, None)
    assert re.search(r"last bar: \S+ and above \(2\)", text)
    charts.scores(np.ones(5), None, 3.0)
    charts.scores(np.array([np.inf]), None, None)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_few_rows_make_a_page_as_well(n):
    given = replace(scored(n=n, m=19, odd=0, rule={"budget": 1}), odd=None)
    text = page(given, CARD, [], untold="they are too few")
    assert "they are too few" in text
    assert text == page(given, CARD, [], untold="they are too few")
    assert ("Too few rows to compare" in text) == (n < 10)


def test_no_name_level_or_number_is_so_wide_that_the_contribution_lies_beyond_the_card():
    columns = (
        Column("merchant_" * 9, "a" * 90, "other", 2.0, 100.0),
        Column("amount", 1e30, 12345678.0, 1.0, 50.0),
    )
    given = replace(scored(n=20, odd=0), odd=None)
    text = page(given, CARD, [Reason(3, "row 3", 9.0, 0.01, True, None, columns)])
    assert ">1e+30<" in text
    assert ">12,345,678<" in text
    assert re.search(rf'<td class="number level">{"a" * 90}</td>', text)
    style = text[text.index("<style>") : text.index("</style>")]
    for broken in (r"\.why th\[scope=row\]", r"\.why \.level"):
        assert re.search(rf"{broken} {{ overflow-wrap: anywhere", style)


def test_pictures_are_small_and_described():
    large = np.linspace(0, 1, 3 * 301 * 200).reshape(3, 301, 200)
    shares = np.zeros_like(large)
    shares[0, 10, 20] = 0.5
    given, expected, why = _pictures(large, large, shares)
    assert (given.name, expected.name, why.name) == ("given", "expected", "why, up to +0.5")
    assert why.alt == "Heat map of the contributions: the largest, +0.5, in row 11 of 301, column 21 of 200"
    assert all(one.uri.startswith("data:image/png;base64,") for one in (given, expected, why))
    smaller = _smaller(large[0])
    assert max(smaller.shape) <= PIXELS
    assert smaller[0, 0] == pytest.approx(large[0, :4, :4].mean())


def test_a_column_that_holds_what_is_expected_is_no_reason():
    same = {"name": "kind", "given": "x", "expected": "x", "contribution": 5e-15}
    other = {"name": "size", "given": 9.0, "expected": 1.0, "contribution": 2.0}
    assert _columns([same]) == ()
    assert _columns([same, other]) == (Column("size", 9.0, 1.0, 2.0, 100.0),)
