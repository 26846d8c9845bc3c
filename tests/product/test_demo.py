"""``anograd demo`` tells its table, and leaves a model, scores and a picture."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import anograd as ag
from anograd.cli import app
from anograd.demo import Outcome, run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> Outcome:
    return run(tmp_path_factory.mktemp("demo"), epochs=3)


def test_the_command_tells_table_regime_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def demo() -> tuple[str, list[str]]:
        options = ["--epochs", "2", "--seed", "3", "--digit", "1"]
        told = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["demo", *options])
        assert told.exit_code == 0, told.output
        return told.stdout, sorted(path.name for path in (tmp_path / "demo").iterdir())

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib.figure", None)
        plain, files = demo()
    assert "no picture: the picture needs matplotlib: pip install 'anograd[report]'" in plain
    assert files == ["model", "scores.csv"]
    told, files = demo()
    assert "no picture" not in told
    assert files == ["model", "most_and_least_anomalous.png", "scores.csv"]
    for line in (
        "Digit 1 is normal", "clean training data, no labels, one split, seed 3", "AUROC of the score",
        "forward-only twin", "minus the mean alignment", "false alarms at alpha 0.05", "95 % interval",
        "anomalies found", "no comparison of methods", "next: anograd info demo/model",
    ):  # fmt: skip
        assert line in " ".join(told.split())
    figures = [line for line in told.splitlines() if line.startswith("│")]
    assert len(figures) == 6
    assert figures == [line for line in plain.splitlines() if line.startswith("│")]


def test_scores_are_the_saved_models_and_no_row_was_fitted(outcome):
    digits = load_digits()
    with outcome.files["scores"].open() as file:
        told = list(csv.DictReader(file))
    rows = np.array([int(row["row"]) for row in told])
    assert len(rows) == outcome.normal + outcome.anomalous
    assert (digits.target[rows] == 0).sum() == outcome.normal == 59
    assert outcome.fitted + outcome.normal == (digits.target == 0).sum()
    images = (digits.images[rows, None] / 16).astype(np.float32)
    scores = ag.load(outcome.files["model"]).anomaly_score(images)
    np.testing.assert_allclose([float(row["score"]) for row in told], scores, rtol=1e-5)
    assert sum(int(row["anomaly"]) for row in told) == outcome.false_alarms + outcome.found


def test_picture_can_be_read(outcome):
    with Image.open(outcome.files["picture"]) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert min(picture.size) > 700


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (0.9, "does NOT beat its forward-only twin, it is behind by 0.0500 AUROC"),
        (0.95001, "does NOT beat its forward-only twin, they are level"),
        (0.97, "beats its forward-only twin by 0.0200 AUROC"),
    ],
)
def test_verdict_is_plain(outcome, score, said):
    assert said in replace(outcome, score=score, twin=0.95).verdict()
