"""The command line, from files to scores and back to a stopped fit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from tests.product.conftest import ENVIRONMENT, fails, real, run, table, works
from typer.testing import CliRunner

import anograd as ag
from anograd import cli

pytestmark = pytest.mark.usefixtures("one_thread")

NEW_PROCESS = """
import sys, json, warnings
import anograd as ag
from anograd.data import read
print(json.dumps(ag.load(sys.argv[1]).anomaly_score(read(sys.argv[2])).tolist()))
"""


# What works


def test_fit_score_info_on_arrays(place, tmp_path):
    model, scores = tmp_path / "a" / "b" / "model", tmp_path / "scores.csv"
    told = works("fit", place / "x.npz:x", "--label", place / "x.npz:y", "-o", model, "--epochs", 2,
                 "--seed", 3, "--calibration", 0.4)  # fmt: skip
    lines = told.stdout.splitlines()
    assert told.stderr == ""
    assert lines[:2] == [
        "detector: gradcon, as for images; --detector takes another",
        "rows: 26 to train, 5 to validate, 19 to calibrate; 10 known anomalies left out",
    ]
    last = "epoch 2 kept, of 2; the last one was the best, so more --epochs may help"
    assert lines[2] in ("epoch 1 kept, of 2", last)
    assert lines[3] == "the smallest reachable p value is 0.05 (1 / 20)"
    assert lines[4].startswith(f"saved to {model}; next: anograd report {model} NEW -o report.html")
    assert [path.name for path in model.parent.iterdir()] == ["model"]
    assert str(tmp_path) not in (model / "manifest.json").read_text()
    told = works("score", model, place / "x.npz:x", "-o", scores, "--alpha", 0.1)
    assert told.stdout == ""
    found = table(scores)
    assert told.stderr == (f"60 rows, {sum(found['anomaly']):.0f} alarms at alpha 0.1; written to {scores}\n")
    assert found["row"] == [str(i) for i in range(60)]
    assert found["anomaly"] == [float(p <= 0.1) for p in found["p_value"]]
    assert found["anomaly"][50:] == [1.0] * 10
    command = [sys.executable, "-c", NEW_PROCESS, str(model), str(place / "x.npz:x")]
    again = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, check=True)
    np.testing.assert_allclose(found["score"], json.loads(again.stdout), rtol=1e-6)
    told = works("info", model).stdout
    for line in ("GradCon", "arXiv:2007.09507", "images 1 x 8 x 8", "calibration=0.4 (default 0.2)",
                 "epochs=2 (default 100)", "seed              3", "19 normal rows",
                 "up.0.weight  64x64x4x4"):  # fmt: skip
        assert line in told


def test_folder_of_images_gives_file_names(place, tmp_path):
    scores = tmp_path / "scores.csv"
    works("fit", place / "good", "-o", tmp_path / "model", "--epochs", 1, "--set", "target=vae")
    works("score", tmp_path / "model", place / "good", "-o", scores)
    found = table(scores)
    assert found["row"][:2] == ["line 2/00.png", "line 2/02.png"]
    assert found["row"][20:] == [f"line, 1/{i:02}.png" for i in range(1, 40, 2)]
    detector = ag.load(tmp_path / "model")
    one = np.asarray(Image.open(place / "good" / found["row"][20]))[None]
    np.testing.assert_allclose(detector.anomaly_score(one), found["score"][20], rtol=1e-5)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_table_with_a_category_and_a_label_column(place, tmp_path, ending):
    data, scores = place / f"x.{ending}", tmp_path / "scores.csv"
    told = works("fit", data, "-o", tmp_path / "model", "--label", "class", "--normal", 0, "--normal", 1.0,
                 "--epochs", 2)  # fmt: skip
    assert "detector: r2ad2, as for a table; --detector takes another" in told.stdout
    assert "20 known anomalies learned from" in told.stdout
    works("score", tmp_path / "model", data, "-o", scores, "--label", "class", "--budget", 7)
    found = table(scores)
    assert 0 < sum(found["anomaly"]) <= 7
    frame = pl.read_parquet(place / "x.parquet").drop("class")
    np.testing.assert_array_equal(found["score"], ag.load(tmp_path / "model").anomaly_score(frame))
    assert "table of 2 columns" in works("info", tmp_path / "model").stdout
    assert "maker (category)" in works("info", tmp_path / "model").stdout


@pytest.mark.parametrize("label", [["x.npz:y"], ["signs.npy"], ["x.npz:words", "--normal", "good"]])
def test_label_files_agree(place, tmp_path, label):
    works("fit", place / "x.npy", "-o", tmp_path / "model", "--epochs", 1, "--label", place / label[0],
          *label[1:])  # fmt: skip
    truth = (np.arange(60) >= 50).astype(int)
    same = ag.GradCon(epochs=1, random_state=0).fit(np.load(place / "x.npy"), truth)
    found = ag.load(tmp_path / "model").calibration_.scores
    np.testing.assert_allclose(found, same.calibration_.scores, rtol=1e-6)


def test_options_reach_the_detector(place, tmp_path):
    works("fit", place / "x.csv", "-o", tmp_path / "model", "--as-published", "--epochs", 1, "--detector",
          "gradcon", "--set", "target=dense", "--set", "alpha=0.5", "--set", "beta=0.25", "--set",
          "reference=recon", "--set", "hidden=(5, 3)",
          "--batch-size", 7, "--learning-rate", 0.01, "--missing", "impute", "--device", "cpu",
          "--threads", 2)  # fmt: skip
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    given = {"alpha": 0.5, "beta": 0.25, "reference": "recon", "batch_size": 7, "learning_rate": 0.01,
             "missing": "impute", "device": "cpu", "hidden": [5, 3], "random_state": 0, "epochs": 1,
             "patience": None, "calibration": 0.0}  # fmt: skip
    assert given.items() <= ag.load(tmp_path / "model").get_params().items()


def test_settings_for_images_are_those_of_python(place, tmp_path):
    told = works("fit", place / "x.npy", "-o", tmp_path / "model", "--for-images", "--epochs", 1,
                 "--set", "target=rotations", "--set", "size=64")  # fmt: skip
    assert told.stdout.startswith("detector: gradscoretest, as for images")
    made = ag.GradScoreTest.for_images(target="rotations", size=64, epochs=1, random_state=0)
    images = np.load(place / "x.npy")
    found = ag.load(tmp_path / "model").anomaly_score(images)
    np.testing.assert_allclose(found, made.fit(images).anomaly_score(images), rtol=1e-6)


def test_scores_to_stdout_in_a_real_process(place, images_model):
    told = real("score", images_model, place / "x.npy", "-o", "-", "--fdr", 0.5)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0] == "row,score,p_value,anomaly"
    assert len(lines) == 61
    alarms = sum(line.endswith(",1") for line in lines)
    assert alarms >= 10
    assert told.stderr == f"60 rows, {alarms} alarms at fdr 0.5\n"


def test_a_closed_pipe_is_no_error(place, images_model):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        command = [sys.executable, "-m", "anograd", "score", images_model, place / "x.npy", "-o", "-"]
        told = subprocess.run(
            command, env=ENVIRONMENT, text=True, stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert "Traceback" not in told.stderr
    assert "Exception" not in told.stderr
    assert "error" not in told.stderr


def test_version_and_detectors():
    assert works("--version").stdout == f"anograd {ag.__version__}\n"
    told = works("info").stdout
    assert ag.__version__ in told
    assert "gradcon" in told
    assert "arXiv:2007.09507" in told


def test_a_level_out_of_reach_is_a_warning(place, images_model, tmp_path):
    told = works("score", images_model, place / "x.npy", "-o", tmp_path / "s.csv", "--alpha", 0.001)
    first, second = told.stderr.splitlines()
    assert first.startswith("warning: alpha=0.001 raises no alarm: with m = ")
    assert second.startswith("60 rows, 0 alarms at alpha 0.001")


def test_one_row_is_no_rows(place, images_model, tmp_path):
    np.save(tmp_path / "x.npy", np.load(place / "x.npy")[55:56])
    for command, output in (("score", "s.csv"), ("report", "r.html")):
        told = works(command, images_model, tmp_path / "x.npy", "-o", tmp_path / output).stderr
        assert told.startswith("1 row, 1 alarm at alpha 0.05")
    page = (tmp_path / "r.html").read_text()
    assert re.search(r"<title>.*: 1 alarm among 1 row</title>", page)
    assert "<p>1 row scored by GradCon" in page
    assert "1 rows" not in page


def test_debug_shows_where():
    told = CliRunner().invoke(cli.app, ["--debug", "info", "nowhere"])
    assert isinstance(told.exception, FileNotFoundError)


# Stopping, and going on


def told_of(model: Path) -> dict[str, object]:
    """Return what a model's manifest tells of it, but for the time of the fit."""
    detector = json.loads((model / "manifest.json").read_text())["detector"]
    return {name: value for name, value in detector.items() if name != "fitted_by"}


def test_an_interrupted_fit_goes_on_to_the_same_model(place, tmp_path, monkeypatch):
    arguments = ["fit", place / "x.npy", "--epochs", 4, "--seed", 5, "-o"]
    works(*arguments, tmp_path / "whole")
    silent = cli.fit.moving

    @contextmanager
    def stopping(epochs: int):
        def show(found):
            if found["epoch"] == 2:
                raise KeyboardInterrupt

        yield show

    monkeypatch.setattr(cli.fit, "moving", stopping)
    told = run(*arguments, tmp_path / "model")
    partial = tmp_path / "model.partial"
    assert told.exit_code == 130
    assert told.stdout == ""
    assert told.stderr == (
        f"stopped after epoch 2 of 4; what was trained is kept in '{partial}': the same command goes on "
        "from there\n"
    )
    assert not (tmp_path / "model").exists()
    monkeypatch.setattr(cli.fit, "moving", silent)
    line = fails("fit", place / "x.npy", "--epochs", 4, "--seed", 6, "-o", tmp_path / "model")
    assert "model.partial was left by a fit with other data or settings: remove it to start afresh" in line
    told = works(*arguments, tmp_path / "model")
    assert told.stderr == f"going on from epoch 2, kept in '{partial}'\n"
    assert not partial.exists()
    assert told_of(tmp_path / "model") == told_of(tmp_path / "whole")
    weights = [tmp_path / name / "tensors.safetensors" for name in ("model", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    rows = np.load(place / "x.npy")
    model, whole = ag.load(tmp_path / "model"), ag.load(tmp_path / "whole")
    np.testing.assert_array_equal(model.anomaly_score(rows), whole.anomaly_score(rows))


def test_ctrl_c_in_a_real_process(place, tmp_path):
    partial = tmp_path / "deep" / "model.partial"
    command = [sys.executable, "-m", "anograd", "fit", place / "x.npy", "-o", tmp_path / "deep" / "model",
               "--epochs", "100000", "--batch-size", "1", "--as-published"]  # fmt: skip
    with subprocess.Popen(command, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE) as process:
        until, written = time.monotonic() + 120, set()
        while len(written) < 2 and time.monotonic() < until and process.poll() is None:
            with suppress(FileNotFoundError):
                written.add(partial.stat().st_ino)  # the second one follows what was told of the first
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.startswith("stopped after epoch ")
    assert said.count("\n") == 1
    assert partial.exists()


def test_a_stop_before_the_first_epoch_leaves_nothing(place, tmp_path, monkeypatch):
    def stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("anograd.train._run_epoch", stop)
    told = run("fit", place / "x.npy", "-o", tmp_path / "deep" / "model")
    assert told.exit_code == 130
    assert told.stderr == "stopped before the first epoch was done; nothing is kept\n"
    assert not list(tmp_path.iterdir())


def test_a_shell_completes_commands():
    asked = {
        **os.environ,
        "_ANOGRAD_COMPLETE": "complete_bash",
        "COMP_WORDS": "anograd ex",
        "COMP_CWORD": "1",
    }
    command = [Path(sys.executable).with_name("anograd")]
    told = subprocess.run(command, env=asked, capture_output=True, text=True, check=False).stdout
    assert told.split() == ["explain", "export"]
