"""``anograd demo`` tells two tables, and leaves models, scores and pictures."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits
from typer.testing import CliRunner

import anograd as ag
from anograd.cli import app
from anograd.demo import Outcome, cancer, digits

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def on_digits(tmp_path_factory) -> Outcome:
    return digits.run(tmp_path_factory.mktemp("demo") / "images", epochs=3)


@pytest.fixture(scope="module")
def on_cancer(tmp_path_factory) -> Outcome:
    return cancer.run(tmp_path_factory.mktemp("demo") / "table", seed=1)


def test_the_command_tells_tables_regimes_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def demo() -> tuple[str, list[str]]:
        options = ["--epochs", "2", "--seed", "3", "--digit", "1"]
        told = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["demo", *options])
        assert told.exit_code == 0, told.output
        return told.stdout, sorted(path.relative_to("demo").as_posix() for path in Path("demo").glob("*/*"))

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib.figure", None)
        plain, files = demo()
    assert plain.count("no picture: the picture needs matplotlib: pip install 'anograd[report]'") == 2
    assert files == ["images/model", "images/scores.csv", "table/model", "table/scores.csv"]
    told, files = demo()
    assert "no picture" not in told
    assert {"images/most_and_least_anomalous.png", "table/benign_and_malignant.png"} < set(files)
    for line in (
        "Digit 1 is normal", "clean training data, no labels, one split, seed 3", "AUROC of the score",
        "forward-only twin", "minus the mean alignment", "false alarms at alpha 0.05", "95 % interval",
        "anomalies found", "no comparison of methods", "next: anograd info demo/images/model",
        "clean training data, 10 known anomalies, one split, seed 3", "AUROC of the novelty alone",
        "average precision", "next: anograd info demo/table/model",
    ):  # fmt: skip
        assert line in " ".join(told.split())
    figures = [line for line in told.splitlines() if line.startswith("│")]
    assert len(figures) == 6 + 9  # a line each: the table fits 80 columns
    assert figures == [line for line in plain.splitlines() if line.startswith("│")]


def scored(outcome: Outcome) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with outcome.files["scores"].open() as file:
        told = list(csv.DictReader(file))
    assert len(told) == outcome.found.normal + outcome.found.anomalous
    return tuple(np.array([float(row[name]) for row in told]) for name in ("row", "score", "anomaly"))


def test_scores_are_the_saved_models_and_no_digit_was_fitted(on_digits):
    data = load_digits()
    rows, scores, alarms = scored(on_digits)
    rows = rows.astype(int)
    assert (data.target[rows] == 0).sum() == on_digits.found.normal == 59
    assert on_digits.fitted + on_digits.found.normal == (data.target == 0).sum()
    images = (data.images[rows, None] / 16).astype(np.float32)
    np.testing.assert_allclose(scores, ag.load(on_digits.files["model"]).anomaly_score(images), rtol=1e-5)
    assert alarms.sum() == on_digits.found.alarms


def test_scores_are_the_saved_models_and_no_row_of_the_table_was_fitted(on_cancer):
    data = load_breast_cancer()
    rows, scores, alarms = scored(on_cancer)
    rows = rows.astype(int)
    assert (data.target[rows] == 1).sum() == on_cancer.found.normal == 357 // 3
    assert (data.target[rows] == 0).sum() == on_cancer.found.anomalous == 212 - 10
    assert on_cancer.fitted + len(rows) == len(data.target)
    detector = ag.load(on_cancer.files["model"])
    np.testing.assert_allclose(scores, detector.anomaly_score(data.data[rows]), rtol=1e-5)
    assert sum(detector.split_.values()) == 238
    assert alarms.sum() == on_cancer.found.alarms
    assert on_cancer.found.auroc > 0.9


@pytest.mark.parametrize("half", ["on_digits", "on_cancer"])
def test_pictures_can_be_read(half, request):
    with Image.open(request.getfixturevalue(half).files["picture"]) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 700


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (0.9, "does NOT beat its forward-only twin, it is behind by 0.0500 AUROC"),
        (0.95001, "does NOT beat its forward-only twin, they are level"),
        (0.97, "beats its forward-only twin by 0.0200 AUROC"),
    ],
)
def test_verdict_is_plain(on_digits, score, said):
    found, twin = replace(on_digits.found, auroc=score), replace(on_digits.twin, auroc=0.95)
    assert said in replace(on_digits, found=found, twin=twin).verdict()
