"""``anograd calibrate``: p values refer to other normal rows, and nothing else of the model changes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from anograd import load
from anograd.cli import app

RNG = np.random.default_rng(0)


def call(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "fit.npy", RNG.normal(size=(200, 3)))
    done = call(
        "fit", tmp_path / "fit.npy", "--detector", "graddensity", "--epochs", 5, "-o", tmp_path / "model"
    )
    assert done.exit_code == 0, done.output
    return tmp_path


def test_p_values_refer_to_the_new_rows_and_scores_stay(folder):
    fresh, new = RNG.normal(size=(99, 3)), RNG.normal(size=(40, 3))
    np.save(folder / "week.npy", fresh)
    before = load(folder / "model")
    done = call("calibrate", folder / "model", folder / "week.npy")
    assert done.exit_code == 0, done.output
    assert "p values refer to 99 rows now, and to 39 before" in done.output
    assert "the smallest reachable p value is 0.01 (1 / 100)" in done.output
    assert "warning" not in done.output
    after = load(folder / "model")
    np.testing.assert_array_equal(after.anomaly_score(new), before.anomaly_score(new))
    np.testing.assert_array_equal(after.p_values(new), before.calibrate(fresh).p_values(new))
    assert "99" in call("info", folder / "model").output


def test_rows_unlike_those_of_the_fit_are_warned_of_and_another_folder_leaves_the_model(folder):
    np.save(folder / "week.npy", 4 * RNG.normal(size=(80, 3)))
    done = call("calibrate", folder / "model", folder / "week.npy", "-o", folder / "other")
    assert "rows raise an alarm as calibrated before, more than normal rows should" in done.stderr
    assert "the rows are unlike those that the model was fitted to" in done.stderr
    assert all(f"'{column}' holds a number outside -" in done.stderr for column in range(3))
    assert len(load(folder / "model").calibration_.scores) == 39
    assert len(load(folder / "other").calibration_.scores) == 80


def test_known_anomalies_are_left_out(folder):
    np.save(folder / "week.npy", RNG.normal(size=(50, 3)))
    np.save(folder / "y.npy", np.arange(50) % 5 == 0)
    done = call("calibrate", folder / "model", folder / "week.npy", "--label", folder / "y.npy")
    assert "p values refer to 40 rows now" in done.output


def test_other_columns_change_nothing(folder):
    np.save(folder / "week.npy", RNG.normal(size=(50, 4)))
    done = call("calibrate", folder / "model", folder / "week.npy")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert len(load(folder / "model").calibration_.scores) == 39


def labelled(folder, normal: int, odd: int, name: str) -> None:
    rows = np.concatenate([RNG.normal(size=(normal, 3)), RNG.normal(3, 1, size=(odd, 3))])
    np.savez(folder / f"{name}.npz", x=rows, y=np.repeat([0, 1], [normal, odd]))


def test_costs_go_by_the_known_anomalies_wherever_there_is_a_rule(folder):
    model, rule = folder / "model", ("--costs", "1:50")
    labelled(folder, 60, 20, "labelled")
    labelled(folder, 80, 10, "new")
    x, y = f"{folder}/new.npz:x", f"{folder}/new.npz:y"
    done = call("score", model, x, "-o", folder / "s.csv", *rule)
    assert done.exit_code == 1
    assert "costs need known anomalies" in done.stderr
    done = call("calibrate", model, f"{folder}/labelled.npz:x", "--label", f"{folder}/labelled.npz:y")
    assert "--costs goes by 20 known anomalies, taken to be 0.25 of the rows to come" in done.output
    done = call("score", model, x, "-o", folder / "s.csv", *rule)
    assert "alarms at costs 1:50" in done.output
    raised = np.loadtxt(folder / "s.csv", delimiter=",", skiprows=1)[:, 3].astype(bool)
    truth = np.arange(90) >= 80
    np.testing.assert_array_equal(raised, load(model).detect(np.load(folder / "new.npz")["x"], costs=(1, 50)))
    done = call("evaluate", model, x, "--label", y, *rule)
    cost = (raised & ~truth).sum() + 50 * (~raised & truth).sum()
    assert f"cost               {cost:,.6g}; the best threshold for these rows would cost " in done.output
    assert "20 known anomalies, taken to be 0.25 of the rows to come" in call("info", model).output
    page = folder / "report.html"
    assert call("report", model, x, "-o", page, *rule).exit_code == 0
    assert "Of all lines, the one that costs least on average where a false alarm costs 1" in page.read_text()


def test_anomalies_alone_leave_p_values_and_want_a_prevalence(folder):
    labelled(folder, 0, 15, "odd")
    command = ("calibrate", folder / "model", f"{folder}/odd.npz:x", "--label", f"{folder}/odd.npz:y")
    done = call(*command)
    assert done.exit_code == 1
    assert "anomalies alone do not tell how common they are" in done.stderr
    before = load(folder / "model").calibration_.scores
    done = call(*command, "--prevalence", 0.01)
    assert done.stdout.startswith("--costs goes by 15 known anomalies, taken to be 0.01 of the rows to come")
    np.testing.assert_array_equal(load(folder / "model").calibration_.scores, before)


def test_too_few_anomalies_are_left_out_with_a_warning(folder):
    labelled(folder, 50, 9, "few")
    done = call("calibrate", folder / "model", f"{folder}/few.npz:x", "--label", f"{folder}/few.npz:y")
    assert "9 known anomalies are left out: a rule by --costs wants 10 or more" in done.stderr
    assert "p values refer to 50 rows now" in done.output
    assert load(folder / "model").calibration_.anomalies is None


def test_costs_that_are_none_are_wrong_usage(folder):
    done = call("score", folder / "model", folder / "fit.npy", "-o", "-", "--costs", "50")
    assert done.exit_code == 2
    assert "two numbers above 0, 1e100 at most: 1:50" in " ".join(done.stderr.replace("│", " ").split())


def test_rows_of_the_fit_are_warned_of_and_the_same_new_ones_twice_are_not(folder):
    seen = "calibrate with rows that the model has not seen"
    np.save(folder / "week.npy", RNG.normal(size=(99, 3)))
    assert seen in call("calibrate", folder / "model", folder / "fit.npy", "-o", folder / "other").stderr
    for _ in range(2):
        assert "warning" not in call("calibrate", folder / "model", folder / "week.npy").output
    np.save(folder / "weeks.npy", np.concatenate([np.load(folder / "week.npy"), RNG.normal(size=(50, 3))]))
    assert "warning" not in call("calibrate", folder / "model", folder / "weeks.npy").output


def test_rows_like_those_of_the_fit_are_no_change(tmp_path):
    """At 39 rows held out, the rate of alarms of a model is anywhere from 1 to 12 %."""
    warned = 0
    for seed in range(8):
        draw = np.random.default_rng(seed)
        np.save(tmp_path / "fit.npy", draw.normal(size=(200, 3)))
        np.save(tmp_path / "week.npy", draw.normal(size=(2000, 3)))
        model = tmp_path / f"model{seed}"
        call("fit", tmp_path / "fit.npy", "--detector", "graddensity", "--epochs", 2, "-o", model)
        warned += "normal has changed" in call("calibrate", model, tmp_path / "week.npy").output
    assert warned <= 1


def test_rows_that_are_all_anomalies_however_they_are_labelled(folder):
    rows = pl.DataFrame(RNG.normal(size=(30, 3)), schema=["0", "1", "2"])
    told = "--costs goes by 30 known anomalies, taken to be 0.01 of the rows to come"
    known = ("--label", "y", "--prevalence", 0.01, "-o", folder / "other")
    for label, words, said in (
        (1, (), "'y' is 1 in every row: taken for known anomalies"),
        (1, ("--normal", 0), "--normal 0 does not occur in 'y', which holds 1"),
        (-1, (), ""),
        ("fraud", ("--normal", "ok"), "--normal ok does not occur in 'y', which holds 'fraud'"),
    ):
        rows.with_columns(y=pl.lit(label)).write_parquet(folder / "odd.parquet")
        done = call("calibrate", folder / "model", folder / "odd.parquet", *known, *words)
        assert done.exit_code == 0, done.output
        assert told in done.stdout
        assert said in done.stderr
        assert bool(said) == bool(done.stderr)
    done = call("calibrate", folder / "model", folder / "odd.parquet", "--label", "y", "--normal", "ok")
    assert done.exit_code == 1
    assert "give one of them" in done.stderr
