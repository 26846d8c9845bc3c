"""``anograd explain`` as a user types it: a table's columns, an image's pixels, and its words on mistakes."""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits
from typer.testing import CliRunner

from anograd import load
from anograd.cli import app
from anograd.cli.options import print_parts
from anograd.data import rows_at


def call(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A folder with labelled rows, new rows and the model of the first."""
    folder = tmp_path_factory.mktemp("table")
    data = load_breast_cancer()
    frame = pl.DataFrame(data.data, schema=list(data.feature_names)).with_columns(
        malignant=pl.Series(1 - data.target)
    )
    benign, malignant = (frame.filter(pl.col("malignant") == one) for one in (0, 1))
    pl.concat([malignant[:5], benign[:200]]).write_csv(folder / "fit.csv")
    pl.concat([benign[200:240], malignant[5:15]]).write_parquet(folder / "new.parquet")
    done = call(
        "fit",
        folder / "fit.csv",
        "--label",
        "malignant",
        "--detector",
        "gradneighbours",
        "-o",
        folder / "model",
    )
    assert done.exit_code == 0, done.output
    return folder


def test_the_highest_rows_are_explained_with_given_and_expected_values(table):
    done = call(
        "explain", table / "model", table / "new.parquet", "--label", "malignant", "--most", 3, "--top", 2
    )
    assert done.exit_code == 0, done.output
    headings = re.findall(r"^row (\d+): score \S+, p (\S+)", done.output, flags=re.MULTILINE)
    assert len(headings) == 3
    assert all(int(row) >= 40 for row, _ in headings)  # malignant ones
    assert len(re.findall(r"[\w ]+ is \S+, expected \S+ \(\+\S+\)", done.output)) == 6
    assert done.output.count("by ") == 3


def test_everything_goes_to_json_and_agrees_with_the_detector(table):
    path = table / "why.json"
    words = (
        "explain",
        table / "model",
        table / "new.parquet",
        "--label",
        "malignant",
        "--rows",
        "41,3",
        "-o",
        path,
    )
    assert call(*words).exit_code == 0
    told = json.loads(path.read_text())
    frame = pl.read_parquet(table / "new.parquet").drop("malignant")
    found = load(table / "model").explain(frame[[41, 3]])
    assert [one["row"] for one in told] == ["row 41", "row 3"]
    np.testing.assert_allclose([one["score"] for one in told], found.scores)
    shares = [[feature["contribution"] for feature in one["features"]] for one in told]
    np.testing.assert_allclose(shares, found.features)
    assert told[0]["features"][0]["name"] == frame.columns[0]
    assert told[0]["features"][0]["given"] == frame[41, 0]


def test_the_nearest_rows_are_normal_ones_by_their_number_in_the_file(table):
    done = call(
        "explain", table / "model", table / "new.parquet", "--label", "malignant", "--rows", "0",
        "--among", table / "fit.csv",
    )  # fmt: skip
    numbers = re.search(r"nearest normal rows: (\d+), (\d+), (\d+)", done.output)
    assert numbers is not None, done.output
    assert all(int(number) >= 5 for number in numbers.groups())  # the first five are known anomalies


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rows", "0,999"), "--rows 0,999: there are the rows 0 to 49"),
        (("--rows", "99999999999999999999"), "there are the rows 0 to 49"),
        (("--rows", "one"), "whole numbers with commas between are wanted"),
        (("-o", "why.txt"), "'why.txt': wanted is x.json, or x.png for images"),
        (("-o", "why.png"), "heat maps are for images"),
        (("--among", "none.csv"), "there is no file or folder 'none.csv'"),
    ],
)
def test_mistakes_are_told_in_one_line(table, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("explain", table / "model", table / "new.parquet", "--label", "malignant", *words)
    assert done.exit_code in (1, 2)
    assert message in " ".join(done.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_images_become_a_picture(tmp_path):
    digits = load_digits()
    images = (digits.images * 15.9).astype(np.uint8)
    np.save(tmp_path / "zeros.npy", images[digits.target == 0][:100])
    np.save(tmp_path / "new.npy", images[-6:])
    assert call("fit", tmp_path / "zeros.npy", "-o", tmp_path / "model", "--epochs", 5).exit_code == 0
    done = call("explain", tmp_path / "model", tmp_path / "new.npy", "--patch", 2, "-o", tmp_path / "why.png")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "why.png").read_bytes()[1:4] == b"PNG"
    assert (
        call("explain", tmp_path / "model", tmp_path / "new.npy", "-o", tmp_path / "why.json").exit_code == 0
    )
    told = json.loads((tmp_path / "why.json").read_text())
    assert np.shape(told[0]["pixels"]) == (1, 8, 8)


def test_the_nearest_pictures_are_called_by_their_names(tmp_path):
    for name in ("fit", "new"):
        (tmp_path / name).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8)).astype(np.uint8)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / ("fit" if i < 20 else "new") / f"{i:02d}.png")
    fit = ("fit", tmp_path / "fit", "--detector", "gradneighbours", "--epochs", 1, "-o", tmp_path / "model")
    assert call(*fit).exit_code == 0
    done = call("explain", tmp_path / "model", tmp_path / "new", "--most", 1, "--among", tmp_path / "fit")
    assert re.search(r"nearest normal rows: \d\d\.png, \d\d\.png, \d\d\.png", done.output), done.output


def test_a_long_name_stands_above_its_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    long = "deep/2026-11-30/line-4/camera-left/part_0001.png: p 0.01"
    print_parts([("a.png: p 0.5", ["pixels +0.01, down.0.weight +0.003"]), (long, ["word " * 9, "last"])])
    assert capsys.readouterr().out.splitlines() == [
        "a.png: p 0.5  pixels +0.01, down.0.weight +0.003",
        long,
        "              word word word word word word word word word",
        "              last",
    ]


def test_rows_are_taken_in_the_order_asked_for():
    frame = pl.DataFrame({"a": [0, 1, 2, 3]})
    index = np.array([3, 0, 2])
    for X in (frame, frame.lazy(), frame.to_arrow(), frame.to_pandas()):
        assert np.asarray(rows_at(X, index)).ravel().tolist() == [3, 0, 2]
