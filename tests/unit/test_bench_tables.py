"""Tables say under which conditions numbers were made, keep regimes apart and show what failed."""

from __future__ import annotations

import math
import re

import pytest

from anograd.bench import stats
from anograd.bench.average import inliers, sweep
from anograd.bench.costs import costs
from anograd.bench.pages import choose, describe
from anograd.bench.regimes import cells, means, only, split
from anograd.bench.table import tables

PLACE = {"machine": "x86_64, 2 cores", "torch": "2.13.0", "anograd": "0.1.0", "commit": "abc1234"}
COSTS = {"fit_seconds": 3.0, "cpu_seconds": 2.5, "score_seconds": 0.1, "peak_mib": 80.0, "weights": None}


def line(detector, data, value=None, *, seed=0, options=None, failed=None, twin=None, **more):
    found = {
        "data": data, "protocol": "adbench", "options": {"labels": 0.01} if options is None else options,
        "detector": detector, "settings": {}, "seed": seed, "regime": "contaminated", "trained_on": 7828,
        "known": 2, "test_rows": 3355, "test_anomalies": 78, **PLACE,
    }  # fmt: skip
    if failed:
        return {**found, "failed": failed, **more}
    scores = {"score": {"auroc": value, "average_precision": value / 2}}
    if twin is not None:
        scores["twin"] = {"auroc": twin, "average_precision": twin / 2}
    return {**found, "scores": scores, **COSTS, **more}


def row(text, name):
    """Return the cells of the rows of a name."""
    return [
        [cell.strip() for cell in one.strip("|").split("|")]
        for one in text.splitlines()
        if one.startswith(f"| {name} |")
    ]


SMALL = [
    line("catboost", "wine", 0.9), line("catboost", "wine", 0.8, seed=1),
    line("catboost", "glass", 0.7), line("catboost", "glass", 0.7, seed=1),
    line("r2ad2", "wine", 0.95, known=3), line("r2ad2", "wine", failed="MemoryError: too\nlarge", seed=1),
    line("r2ad2", "glass", 0.6), line("r2ad2", "glass", 0.6, seed=1),
]  # fmt: skip


def test_a_small_table_word_by_word():
    assert tables(SMALL, labels={"r2ad2": "R2-AD2"}) == (
        "**adbench, labels 0.01, contaminated.** AUROC, mean (lower to higher) of seeds 0 and 1; "
        "trained on 7,828 rows, 2 to 3 known anomalies.\n\n"
        "| detector | glass | wine | mean | mean rank |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| catboost | **0.700 (0.700 to 0.700)** | 0.850 (0.800 to 0.900) | **0.775** | **1.50** |\n"
        "| R2-AD2 | 0.600 (0.600 to 0.600) | **0.950 (1), 1 failed** | **0.775** | **1.50** |\n\n"
        "Mean and mean rank over all 2 data sets.\n\n"
        "Failed:\n\n"
        "- R2-AD2 on wine (seed 1): MemoryError: too large\n\n"
        "No test: on fewer than 6 data sets no difference can be found at p < 0.05.\n\n"
        "Measured on x86_64, 2 cores; torch 2.13.0; anograd 0.1.0; commit abc1234."
    )


def test_nothing_is_not_measured_yet():
    for made in (tables([]), sweep([], "labels"), inliers([]), costs([]), describe([])):
        assert made == "Not measured yet."


@pytest.mark.parametrize(
    "other", [{"regime": "clean"}, {"options": {"labels": 0.05}}, {"protocol": "one-class", "options": {}}]
)
def test_two_regimes_never_stand_in_one_table(other):
    text = tables([*SMALL, {**line("loss", "wine", 0.5), **other}])
    assert text.count("| detector |") == 2
    first, second = text.split("| detector |")[1:]
    assert row(second, "loss")
    assert not row(first, "loss")
    assert not row(second, "catboost")
    with pytest.raises(
        ValueError, match=r"a picture is of one regime; got 2: adbench, labels 0.01, contaminated;"
    ):
        only([*SMALL, {**line("loss", "wine", 0.5), **other}])


def test_a_line_that_failed_before_its_regime_was_known_stands_with_its_like():
    lost = {
        key: value
        for key, value in line("loss", "wine", failed="OSError: no file").items()
        if key != "regime"
    }
    assert len(split([*SMALL, lost])) == 1
    both = [*SMALL, {**line("loss", "glass", 0.5), "regime": "clean"}, lost]
    assert [one.regime for one in split(both)] == ["contaminated", "clean", "regime unknown"]


def test_an_incomplete_block_is_left_out_of_ranks_and_named():
    lines = [
        line("a", "x", 0.9), line("a", "y", 0.1), line("a", "z", 0.1),
        line("b", "x", 0.8), line("b", "y", failed="ValueError: no"),
    ]  # fmt: skip
    text = tables(lines)
    assert row(text, "a") == [["a", "**0.900**", "0.100", "0.100", "**0.900**", "**1.00**"]]
    assert row(text, "b") == [["b", "0.800", "failed", "not run", "0.800", "2.00"]]
    assert "over the 1 data set on which every detector has a value; left out: y, z." in text
    assert "- b on y (seed 0): ValueError: no" in text


def test_a_detector_that_only_failed_is_shown_and_hinders_no_comparison():
    text = tables([line("a", "x", 0.9), line("c", "x", 0.7), line("b", "x", failed="ValueError: no")])
    assert row(text, "b") == [["b", "failed", "", ""]]
    assert row(text, "a") == [["a", "**0.900**", "**0.900**", "**1.00**"]]


@pytest.mark.parametrize("value", [math.nan, None])
def test_a_measure_that_is_no_number_failed(value):
    broken = line("a", "x", 0.5)
    broken["scores"]["score"]["auroc"] = value
    text = tables([broken, line("a", "y", 0.5)])
    assert row(text, "a")[0][1] == "failed"
    assert f"no finite auroc: {value}" in text


def test_many_data_sets_become_rows_and_are_tested():
    names = [f"set{i:02d}" for i in range(13)]
    lines = [
        line(name, data, base + 0.01 * i) for name, base in (("a", 0.8), ("b", 0.5), ("c", 0.1))
        for i, data in enumerate(names)
    ]  # fmt: skip
    text = tables(lines)
    assert "| data set | a | b | c |" in text
    assert row(text, "set03") == [["set03", "**0.830**", "0.530", "0.130"]]
    assert row(text, "mean rank") == [["mean rank", "**1.00**", "2.00", "3.00"]]
    assert "Friedman over 3 detectors and 13 data sets: p < 0.001." in text
    p = stats.wilcoxon_holm(means(cells(lines, "auroc")), "a")["b"]
    assert "Against a, the best in mean rank (two-sided Wilcoxon signed-rank over 13 data sets, " in text
    assert "Holm-corrected for 2): b p < 0.001, c p < 0.001." in text
    assert p == pytest.approx(2 * 2 / 2**13)


def test_scores_and_settings_are_rows_of_their_own():
    lines = [
        line("r2ad2", "x", 0.9, twin=0.8), line("loss", "x", 0.5),
        line("r2ad2", "x", 0.7, settings={"epochs": 5}, twin=0.6),
    ]  # fmt: skip
    text = tables(lines, scores=("score", "twin"), detectors=["loss", "r2ad2", "absent"])
    found = re.findall(r"^\| (?!detector|---)(.*?) \|", text, re.MULTILINE)
    told = ["r2ad2 (epochs as set)", "r2ad2 (epochs 5)"]
    assert found == ["loss", told[0], f"{told[0]}: twin", told[1], f"{told[1]}: twin"]
    assert "Not measured yet: absent." in text


def test_detectors_of_one_label_stay_apart():
    text = tables([line("a", "x", 0.9), line("b", "x", 0.5)], labels={"a": "Same", "b": "Same"})
    assert [row(text, name)[0][1] for name in ("Same [a]", "Same [b]")] == ["**0.900**", "0.500"]


def test_a_cell_that_two_files_have_counts_once():
    again = [{**one, "scores": {"score": {"auroc": 0.1}}} for one in SMALL[:1]]
    assert describe([*SMALL, *again]) == tables([*again, *SMALL[1:]])


def test_names_that_are_not_there_have_the_nearest():
    with pytest.raises(ValueError, match=r"no measure 'aurok'; did you mean 'auroc'"):
        tables(SMALL, "aurok")
    with pytest.raises(ValueError, match=r"no score 'twin'; wanted is one of: score$"):
        describe(SMALL, scores=("score", "twin"))
    with pytest.raises(ValueError, match=r"no option 'label'; did you mean 'labels'"):
        sweep(SMALL, "label")
    with pytest.raises(ValueError, match=r"no detector 'catbost'; did you mean 'catboost'"):
        choose(SMALL, detectors=["catbost"])
    with pytest.raises(ValueError, match=r"no detector 'catbost'; did you mean 'catboost'"):
        costs(SMALL, against="catbost")


def test_sweep_is_over_the_same_data_sets_everywhere():
    lines = [
        line(name, data, value, seed=seed, options={"labels": labels})
        for name, base in (("a", 0.5), ("b", 0.6))
        for labels, more in ((0.05, 0.1), (0, 0.0), (0.01, 0.05))
        for data, value in (("x", base + more), ("y", base + more + 0.2))
        for seed in (0, 1, 2)
        if (name, labels) != ("b", 0)
    ]
    lines += [line("a", "z", 0.1, options={"labels": 0.01})]
    lines += [line("b", "z", failed="ValueError: no", options={"labels": 0.01})]
    text = sweep(lines, "labels", "average_precision")
    assert "**adbench, contaminated.** Average precision, mean over data sets ± half" in text
    assert "| detector | labels 0 | labels 0.01 | labels 0.05 |" in text
    assert row(text, "a") == [["a", "0.300 ± 0.000", "0.325 ± 0.000", "0.350 ± 0.000"]]
    assert row(text, "b") == [["b", "not run", "**0.375 ± 0.000**", "**0.400 ± 0.000**"]]
    assert "Means over the 2 data sets on which every detector has a value; left out: z." in text
    assert "- b on z, labels 0.01 (seed 0): ValueError: no" in text


def test_inliers_are_means_over_classes_with_the_interval_over_seeds():
    classes = {0: (0.5, 0.7, 0.9), 1: (0.9, 0.9, 0.9)}
    lines = [
        line("gradcon", "mnist", value, seed=seed, options={"inlier": inlier}, twin=0.5)
        for inlier, values in classes.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    lines += [
        line("gradcon", "mnist", 0.1, options={"inlier": 2}),
        line("gradcon", "cifar10", 0.6, options={"inlier": 0}),
    ]
    lines += [
        line("loss", "mnist", 0.4, seed=seed, options={"inlier": i}) for i in (0, 1) for seed in (0, 1, 2)
    ]
    text = inliers(lines, scores=("score", "twin"))
    assert "| data set | gradcon | gradcon: twin | loss |" in text
    half = stats.mean([0.7, 0.8, 0.9]).half
    assert row(text, "mnist") == [["mnist", f"**0.800 ± {half:.3f}**", "0.500 ± 0.000", "0.400 ± 0.000"]]
    assert row(text, "cifar10") == [["cifar10", "0.600 (1)", "not run", "not run"]]
    assert "- mnist: normal classes 0, 1; left out, as a detector has no value: 2" in text
    assert describe([*SMALL, *lines]) == f"{tables(SMALL)}\n\n{inliers(lines)}"
    with pytest.raises(ValueError, match="wants lines with the option 'inlier'; got some without"):
        inliers([*SMALL, *lines])


def test_costs_are_medians_and_weights_stand_beside_another():
    lines = [
        line("r2ad2", "x", 0.9, weights=3000, fit_seconds=seconds, seed=seed)
        for seed, seconds in enumerate((1, 2, 60))
    ]
    lines += [line("gradcon", "x", 0.8, weights=120_000), line("loss", "y", 0.8)]
    lines += [line("gradcon", "y", failed="ValueError: no")]
    text = costs(lines, against="r2ad2", labels={"r2ad2": "R2-AD2"})
    assert row(text, "R2-AD2 (`r2ad2`)")[0][1:] == ["3,000", "", "2", "2.5", "33,550", "80", "3"]
    assert row(text, "gradcon")[0][1:4] == ["120,000", "40 times more", "3"]
    assert row(text, "gradcon")[0][-1] == "1, 1 failed"
    assert row(text, "loss")[0][1:3] == ["no network", ""]
    by_data = costs(lines, by_data=True, detectors=["gradcon"])
    assert [one[:3] for one in row(by_data, "gradcon")] == [
        ["gradcon", "x", "120,000"],
        ["gradcon", "y", "failed"],
    ]


def test_choose_takes_values_of_options_and_lists_of_them():
    lines = [line("a", "x", 0.5, options={"labels": labels}) for labels in (0.01, 0.05, 0.1)]
    assert len(choose(lines, options={"labels": 0.05})) == 1
    assert len(choose(lines, options={"labels": [0.05, 0.1]}, protocol="adbench", data=["x"])) == 2
    assert choose([], protocol="any") == []
    with pytest.raises(ValueError, match=r"no protocol 'adbenhc'; did you mean 'adbench'"):
        choose(lines, protocol="adbenhc")


def test_detectors_that_failed_alike_are_told_together():
    failed = [line(name, "iris", failed="ValueError: one class") for name in ("catboost", "r2ad2")]
    assert "\n- catboost, r2ad2 on iris (seed 0): ValueError: one class\n" in tables([*SMALL, *failed])
