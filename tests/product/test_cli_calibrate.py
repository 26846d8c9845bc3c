"""``anograd calibrate``: p values refer to other normal rows, and nothing else of the model changes."""

from __future__ import annotations

import numpy as np
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
