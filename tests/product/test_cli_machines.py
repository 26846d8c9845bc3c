"""What programs hold on to: one JSON object, one exit code, and rows through pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from tests.product.conftest import ENVIRONMENT, real, run, table, works

import anograd as ag

pytestmark = pytest.mark.usefixtures("one_thread")
LABEL = ("--label", "class", "--normal", 0, "--normal", 1)


def told(*args: object) -> dict:
    """Run a command with --json; return its one object, beside which nothing is said."""
    result = works(*args, "--json")
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def refused(code: int, *args: object) -> dict:
    result = run(*args, "--json")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    found = json.loads(result.stderr)
    assert set(found) == {"error", "kind"}
    return found


# One object


def test_a_model_is_fitted_and_described(place, tmp_path):
    model = tmp_path / "model"
    found = told("fit", place / "x.csv", *LABEL, "--epochs", 1, "-o", model)
    assert found.pop("warnings") == []
    assert found == {
        "model": str(model), "detector": "R2AD2", "rows": 60,
        "split": {"train": 28, "validation": 4, "calibration": 8},
        "known_anomalies": 20, "learned_from_known": True, "epochs": 1, "kept_epoch": 1, "smallest_p": 1 / 9,
    }  # fmt: skip
    about = told("info", model)
    assert (about["model"], about["detector"], about["calibration_rows"]) == (str(model), "R2AD2", 8)
    assert about["parameters"]["epochs"] == 1
    assert about["fitted_by"]["anograd"] == ag.__version__
    assert about["described"]["rows"] == ["table of 2 columns, encoded as 4 numbers: size, maker (category)"]
    names = [one["name"] for one in told("info")["detectors"]]
    assert names[:2] == ["gradcon", "r2ad2"]


def test_epochs_that_nothing_learned_in_are_told_of(place, tmp_path):
    data = pl.read_csv(place / "x.csv").drop("class")
    data.write_csv(tmp_path / "x.csv")
    found = told("fit", tmp_path / "x.csv", "--epochs", 2, "-o", tmp_path / "model")
    assert (found["learned_from_known"], found["epochs"], found["kept_epoch"]) == (False, 0, None)
    (line,) = found["warnings"]
    assert line.startswith("no anomaly is known, so no alarm network learned, and --epochs is theirs")


def test_rows_are_scored_explained_and_reported(place, table_model, tmp_path):
    data = pl.read_csv(place / "x.csv")
    data.drop("class").write_csv(tmp_path / "x.csv")
    scores, page = tmp_path / "scores.csv", tmp_path / "report.html"
    found = told("score", table_model, tmp_path / "x.csv", "-o", scores, "--budget", 7)
    alarms = sum(table(scores)["anomaly"])
    assert found == {
        "rows": 60, "rejected": 0, "alarms": alarms, "rule": {"budget": 7},
        "output": str(scores), "warnings": [],
    }  # fmt: skip
    found = told("report", table_model, tmp_path / "x.csv", "-o", page, "--budget", 7)
    assert (found["alarms"], found["output"]) == (alarms, str(page))
    assert page.read_text().startswith("<!doctype html>")
    found = told("explain", table_model, tmp_path / "x.csv", "--most", 3, "-o", tmp_path / "why.json")
    assert found["reasons"] == json.loads((tmp_path / "why.json").read_text())
    assert len(found["reasons"]) == 3


def test_a_model_is_judged_and_calibrated(place, table_model, tmp_path):
    found = told("evaluate", table_model, place / "x.csv", *LABEL)
    works("evaluate", table_model, place / "x.csv", *LABEL, "-o", tmp_path / "same.json")
    assert "alpha=0.05 raises no alarm" in found.pop("warnings")[0]
    assert found == json.loads((tmp_path / "same.json").read_text())
    found = told("calibrate", table_model, place / "x.csv", *LABEL, "-o", tmp_path / "model")
    assert (found["model"], found["rows"], found["alpha"]) == (str(tmp_path / "model"), 40, 0.05)


def test_warnings_are_part_of_the_object(place, table_model, tmp_path):
    found = told("score", table_model, place / "x.csv", "-o", tmp_path / "scores.csv", "--alpha", 0.001)
    assert "columns that the model was not fitted on, and they are left out: 'class'" in found["warnings"][0]
    assert "alpha=0.001 raises no alarm" in found["warnings"][1]


def test_data_sets_are_listed():
    found = told("bench", "data")["data_sets"]
    assert {"name": "digits", "missing": None} in found


@pytest.mark.parametrize(
    ("code", "kind", "said", "command"),
    [
        (1, "file", "there is no file or folder", ["fit", "none.csv", "-o", "model"]),
        (
            1,
            "input",
            "has no column 'kind' to leave out",
            ["fit", "{x.csv}", "-o", "model", "--drop", "kind"],
        ),
        (1, "input", "is not a model folder of anograd", ["info", "{empty}"]),
        (2, "usage", "Missing argument", ["fit", "-o", "model"]),
        (2, "usage", "No such option: --epoch", ["fit", "{x.csv}", "-o", "model", "--epoch", "3"]),
        (2, "usage", "there is no detector 'r2d2'", ["fit", "{x.csv}", "-o", "m", "--detector", "r2d2"]),
        (2, "usage", "No such command 'fitt'", ["fitt"]),
        (2, "usage", "--json prints one object to stdout", ["score", "model", "{x.csv}", "-o", "-"]),
    ],
)
def test_errors_are_one_object_with_the_same_code(place, tmp_path, monkeypatch, code, kind, said, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    words = [
        word.replace("{x.csv}", str(place / "x.csv")).replace("{", "").replace("}", "") for word in command
    ]
    found = refused(code, *words)
    assert found["kind"] == kind
    assert said in found["error"]
    assert run(*words).exit_code == (
        1 if "--json" in said else code
    )  # there, it is the model that is missing


# Exit codes


def test_help_lists_the_exit_codes():
    said = " ".join(works("--help").stdout.split())
    for code in (
        "0 done",
        "1 an error",
        "2 wrong usage",
        "3 bench",
        "130 stopped by Ctrl-C",
        "141 the reader",
    ):
        assert code in said


def wait(process: subprocess.Popen[str], ready) -> None:
    until = time.monotonic() + 120
    while not ready() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)


def test_ctrl_c_while_scoring_is_one_line_and_leaves_no_file(table_model, tmp_path):
    os.mkfifo(tmp_path / "x.csv")  # the command waits for the rows, for ever
    command = [
        sys.executable,
        "-m",
        "anograd",
        "score",
        table_model,
        tmp_path / "x.csv",
        "-o",
        tmp_path / "s.csv",
    ]
    with subprocess.Popen(
        command, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        with (tmp_path / "x.csv").open("w"):  # returns when the command has come to read
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        out, said = process.communicate(timeout=60)
    assert (process.returncode, out, said) == (130, "", "stopped\n")
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_ctrl_c_that_polars_makes_an_error_of_is_still_ctrl_c(place, table_model, monkeypatch):
    def stop(*args: object, **more: object) -> None:
        raise pl.exceptions.ComputeError("KeyboardInterrupt: ")

    monkeypatch.setattr(pl, "read_csv", stop)
    result = run("score", table_model, place / "x.csv", "-o", "-", "--label", "class")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "stopped\n")


@pytest.mark.parametrize(
    ("more", "said"), [([], "stopped\n"), (["--json"], '{"error": "stopped", "kind": "stopped"}\n')]
)
def test_ctrl_c_while_the_program_loads_is_said_as_at_any_time(tmp_path, more, said):
    marker = tmp_path / "torch.py"
    marker.write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "anograd", "info", *more],
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", said)


def test_a_reader_that_goes_away_ends_the_command_as_the_signal_would(place, images_model):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        command = [sys.executable, "-m", "anograd", "score", images_model, place / "x.npy", "-o", "-"]
        done = subprocess.run(
            command, env=ENVIRONMENT, text=True, stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (141, "")


# Rows through a pipe


def test_rows_come_from_stdin_and_go_to_stdout(place, table_model, tmp_path):
    works("score", table_model, place / "x.csv", "-o", tmp_path / "file.csv")
    done = real("score", table_model, "-", "-o", "-", input=(place / "x.csv").read_text())
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "file.csv").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.parquet", "stdin holds no CSV but a Parquet file; give that file itself, or write a CSV of it"),
        ("x.npy", "stdin holds no CSV but a NumPy file; give that file itself, or write a CSV of it"),
        (None, "stdin could not be read as CSV: its first line is empty; a line of names comes first"),
    ],
)
def test_what_is_no_csv_on_stdin_is_one_line(place, table_model, name, said):
    content = (place / name).read_bytes() if name else b""
    command = [sys.executable, "-m", "anograd", "score", table_model, "-", "-o", "-"]
    done = subprocess.run(command, env=ENVIRONMENT, input=content, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"", f"error: {said}\n")


def test_text_in_another_encoding_on_stdin_is_named(tmp_path):
    command = [sys.executable, "-m", "anograd", "fit", "-", "-o", tmp_path / "model"]
    content = "x,city\n1,Köln\n".encode("latin-1")
    done = subprocess.run(command, env=ENVIRONMENT, input=content, capture_output=True, check=False)
    said = "stdin is no text in UTF-8; if it is in Latin-1: iconv -f latin1 -t utf-8 FILE | anograd ... -"
    assert (done.returncode, done.stderr.decode()) == (1, f"error: {said}\n")
    assert not (tmp_path / "model").exists()
