"""The command line as a user has it: commands, files, models."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import anograd as ag
from anograd import cli, serve
from anograd.serve.limits import Limits

ROOT = Path(ag.__file__).parents[1]
# Ray's workers would give way to every other test, and take five times as long.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112, the name that Ray has for it
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


@pytest.fixture(scope="module")
def one_thread():
    """The networks here are too small to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(*args: object):
    return CliRunner(env={"COLUMNS": "100"}).invoke(cli.app, [str(arg) for arg in args])


def works(*args: object):
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def fails(*args: object) -> str:
    """Run a command that must end in one line on stderr and nothing on stdout; return the line."""
    result = run(*args)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def misused(*args: object) -> str:
    """Run a command whose options make no sense; return what is said, without the frame."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.replace("│", " ").split())


def real(*args: object, **more) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "anograd", *map(str, args)]
    return subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, check=False, **more)


def table(path: Path) -> dict[str, list]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "score", "p_value", "anomaly"]
    numbers = {name: [float(row[name]) for row in rows] for name in ("score", "p_value", "anomaly")}
    return {"row": [row["row"] for row in rows], **numbers}


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A folder of inputs: images, labels, tables."""
    folder = tmp_path_factory.mktemp("inputs")
    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (60, 8, 8)).astype(np.uint8)
    images[50:] += 150
    words = np.where(np.arange(60) < 50, "good", "bad")
    np.savez(folder / "x.npz", x=images, y=(np.arange(60) >= 50).astype(int), words=words)
    np.save(folder / "x.npy", images)
    np.save(folder / "signs.npy", np.where(np.arange(60) < 50, 1, -1))
    frame = pl.DataFrame(
        {
            "size": draw.normal(10, 1, 60).round(4),
            "maker": draw.choice(["abel", "beta"], 60),
            "class": np.arange(60) % 3,
        }
    )
    frame.write_csv(folder / "x.csv")
    frame.write_parquet(folder / "x.parquet")
    for i, image in enumerate(images[:40]):
        path = folder / "good" / ("line, 1" if i % 2 else "line 2") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture(scope="session")
def images_model(place) -> Path:
    works("fit", place / "x.npz:x", "-o", place / "images", "--epochs", 2, "--label", place / "x.npz:y",
          "--calibration", 0.4)  # fmt: skip
    return place / "images"


@pytest.fixture(scope="session")
def table_model(place) -> Path:
    works("fit", place / "x.csv", "-o", place / "tables", "--epochs", 2, "--label", "class", "--normal", 0,
          "--normal", "1")  # fmt: skip
    return place / "tables"


# The service

SMALL = Limits(rows=60, bytes=100_000, seconds=20)


def served(detector, limits: Limits | None = None, **more):
    """Return a client of a detector's service."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Starlette would rather have another HTTP client beneath its own
        from fastapi.testclient import TestClient
    return TestClient(serve.app(detector, limits), **more)


@pytest.fixture(scope="session")
def table_detector(place):
    """A detector of the columns size and maker."""
    frame = pl.read_csv(place / "x.csv").drop("class")
    return ag.GradCon(epochs=2, calibration=0.4, random_state=0).fit(frame)


@pytest.fixture(scope="session")
def array_detector():
    """A detector of an array of three columns, which may lack cells."""
    rows = np.random.default_rng(0).normal(size=(50, 3))
    return ag.GradCon(epochs=1, missing="impute", random_state=0).fit(rows)


@pytest.fixture(scope="session")
def image_detector(images_model):
    return ag.load(images_model)


@pytest.fixture(scope="session")
def client(table_detector):
    return served(table_detector, SMALL)


@pytest.fixture(scope="session")
def image_client(image_detector):
    return served(image_detector, SMALL)


def bytes_of(write) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def png(array, kind="PNG") -> bytes:
    return bytes_of(lambda stream: Image.fromarray(array).save(stream, kind))


def npy(array) -> bytes:
    return bytes_of(lambda stream: np.save(stream, array))


def parquet(frame: pl.DataFrame) -> bytes:
    return bytes_of(frame.write_parquet)


def problem(answer) -> str:
    """Return the detail of an answer that must be a problem, and nothing but one."""
    found = answer.json()
    assert set(found) == {"title", "status", "detail"}
    assert found["status"] == answer.status_code
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    assert "anograd-" not in found["detail"]  # the temporary folder's name
    return found["detail"]
