"""No command writes over what it reads, and what one file means does not depend on the command."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest
from tests.product.conftest import fails, misused, works

from anograd import load
from anograd.whole import alone

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_part_of_the_input_is_not_written_over(place, table_model, tmp_path):
    frame = pl.read_parquet(place / "x.parquet").drop("class")
    parts = tmp_path / "parts"
    parts.mkdir()
    for i, name in enumerate("abc"):
        frame[20 * i : 20 * (i + 1)].write_parquet(parts / f"{name}.parquet")
    before = {path.name: path.read_bytes() for path in parts.iterdir()}
    line = fails("score", table_model, parts / "*.parquet", "-o", parts / "b.parquet")
    assert "is the file of the rows, which would be lost" in line
    for name in ("c.parquet", "scores.parquet"):
        line = fails("score", table_model, parts, "-o", parts / name)
        assert "which would be lost" in line or "would become part of it" in line
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == before
    works("score", table_model, parts, "-o", tmp_path / "scores.csv")


def test_what_is_no_picture_may_lie_among_pictures(place, images_model, tmp_path):
    pictures = shutil.copytree(place / "good", tmp_path / "good")
    for name in ("why.png", "line 2/why.png"):
        line = fails("explain", images_model, pictures, "-o", pictures / name)
        assert "would become part of it" in line
    for folder in (pictures, tmp_path):
        works("score", images_model, pictures, "-o", folder / "scores.csv")
    assert (pictures / "scores.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()


def test_a_model_is_not_written_over(place, table_model):
    before = (table_model / "manifest.json").read_bytes()
    for command in (
        ("evaluate", table_model, place / "x.csv", "--label", "class", "--normal", 0),
        ("score", table_model, place / "x.csv"),
    ):
        output = table_model / ("manifest.json" if command[0] == "evaluate" else "scores.csv")
        assert "would become part of it" in fails(*command, "-o", output)
    assert (table_model / "manifest.json").read_bytes() == before
    assert not (table_model / "scores.csv").exists()


def test_two_fits_do_not_write_one_model(place, tmp_path):
    fit = ("fit", place / "x.csv", "-o", tmp_path / "model", "--label", "class", "--normal", 0, "--epochs", 1)
    with alone(tmp_path / "model"):
        assert "another run writes to '" in fails(*fit)
    works(*fit)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_fit_that_ends_in_no_number_leaves_no_way_to_go_on(place, tmp_path):
    """It would come to the same end, and a corrected one would be refused for what it had left."""
    fit = ("fit", place / "x.csv", "-o", tmp_path / "model", "--label", "class", "--normal", 0)
    assert "loss became" in fails(*fit, "--learning-rate", 1e30)
    assert list(tmp_path.glob("*partial*")) == []
    works(*fit, "--epochs", 1)


def test_rejects_and_scores_are_two_files(place, table_model, tmp_path):
    line = fails(
        "score", table_model, place / "x.csv", "-o", tmp_path / "s.csv", "--rejects", tmp_path / "." / "s.csv"
    )
    assert "is the file of the scores" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["evaluate", "explain", "rejects"])
def test_where_stdout_is_no_output(place, table_model, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    given = {
        "evaluate": ("evaluate", table_model, place / "x.csv", "--label", "class", "--normal", 0, "-o", "-"),
        "explain": ("explain", table_model, place / "x.csv", "-o", "-"),
        "rejects": ("score", table_model, place / "x.csv", "-o", "s.csv", "--rejects", "-"),
    }[command]
    assert "- is no name of a file" in fails(*given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["calibrate", "report", "explain"])
def test_normal_without_label(place, table_model, tmp_path, command):
    more = {"calibrate": ("-o", tmp_path / "m"), "report": ("-o", tmp_path / "r.html"), "explain": ()}[
        command
    ]
    assert "give --label, too" in misused(command, table_model, place / "x.csv", "--normal", 0, *more)
    assert not list(tmp_path.iterdir())


def test_known_anomalies_are_not_compared_with(place, table_model, tmp_path):
    """Labels that are no 0 and 1 want --normal; a file without that column is taken to be normal."""
    frame = (
        pl.read_csv(place / "x.csv")
        .drop("class")
        .with_columns(kind=pl.Series(np.where(np.arange(60) < 40, "ok", "odd")))
    )
    frame.write_csv(tmp_path / "known.csv")
    frame.drop("kind").write_csv(tmp_path / "normal.csv")
    model = ("explain", table_model, tmp_path / "known.csv", "--rows", "50", "--label", "kind")
    assert "say which are normal: --normal VALUE" in fails(*model, "--among", tmp_path / "known.csv")
    why = tmp_path / "why.json"
    works(*model, "--among", tmp_path / "known.csv", "--normal", "ok", "-o", why)
    assert max(json.loads(why.read_text())[0]["nearest"]) < 40
    works(*model, "--among", tmp_path / "normal.csv", "--normal", "ok", "-o", why)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"size,size\n1,2\n", "has more than one column named 'size'"),
        (b"size,maker\r1,abel\r", "ends its lines with a carriage return alone: tr"),
        (b'size,"maker\n(name)"\n1,abel\n', "its line of names is not whole"),
        ("size,maker\n1,abel\n".encode("utf-16"), "is in UTF-16, and CSV is wanted as plain text in UTF-8"),
        (b"\x1f\x8b\x08\x00rest", "is compressed, and CSV is wanted as plain text"),
        (b"\xfd7zXZ\x00\x00\rest", "is compressed, and CSV is wanted as plain text in UTF-8: unxz"),
        (b"PK\x03\x04rest", "holds no CSV but a NumPy, Excel or zip file"),
        (b"sep=,\nsize,maker\n1,abel\n", "begins with a line on its separator: tail -n +2"),
        (b"\nsize,maker\n1,abel\n", "its first line is empty; a line of names comes first"),
        (b"size," + b"x" * 200_000 + b"\n1,2\n", "a name has at most"),
    ],
)
def test_a_csv_is_refused_by_every_command_alike(table_model, tmp_path, content, said):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    for command in (
        ("fit", path, "-o", tmp_path / "m"), ("score", table_model, path, "-o", tmp_path / "s.csv"),
        ("explain", table_model, path),
    ):  # fmt: skip
        assert said in fails(*command)


def test_a_word_for_an_empty_cell_makes_no_category(tmp_path):
    numbers = [str(i % 24) for i in range(60)]
    numbers[7] = "NA"
    pl.DataFrame({"hour": numbers, "y": np.linspace(0, 1, 60)}).write_csv(tmp_path / "x.csv")
    line = fails("fit", tmp_path / "x.csv", "-o", tmp_path / "m")
    assert "column 'hour' holds numbers and 'NA', which seems to stand for an empty cell" in line
    mixed = pl.DataFrame({"code": ["1", "2", "X", "NA"] * 15, "y": np.linspace(0, 1, 60)})
    mixed.write_csv(tmp_path / "codes.csv")
    works("fit", tmp_path / "codes.csv", "-o", tmp_path / "m", "--epochs", 1)


def test_codes_are_categories_in_a_file_that_has_only_digits(tmp_path):
    """02 and 03 alone look like numbers; the model knows that they are none, whichever command reads them."""
    draw = np.random.default_rng(0)
    code = 'code "new"'  # a CSV holds the quotes doubled, and a name has them once
    frame = pl.DataFrame({code: draw.choice(["A1", "02", "03"], 80), "size": draw.normal(size=80)})
    frame.write_csv(tmp_path / "x.csv")
    works("fit", tmp_path / "x.csv", "-o", tmp_path / "m", "--epochs", 1, "--detector", "graddensity")
    digits = frame.filter(pl.col(code) != "A1").with_columns(
        odd=pl.Series([0, 1] * 40)[: (frame[code] != "A1").sum()]
    )
    digits.write_csv(tmp_path / "new.csv")
    new = ("--label", "odd")
    works("score", tmp_path / "m", tmp_path / "new.csv", "-o", tmp_path / "s.csv", *new)
    works("evaluate", tmp_path / "m", tmp_path / "new.csv", *new, "-o", tmp_path / "e.json")
    assert code in load(tmp_path / "m").feature_names_in_
    works("explain", tmp_path / "m", tmp_path / "new.csv", *new, "-o", tmp_path / "why.json")
    scores = pl.read_csv(tmp_path / "s.csv")["score"].sort(descending=True)
    why = json.loads((tmp_path / "why.json").read_text())
    np.testing.assert_allclose([one["score"] for one in why], scores[: len(why)], rtol=1e-9)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.arange(200.0), "error: Expected 2D array, got 1D array instead: Reshape your data"),
        (np.ones((50, 4), complex), "error: Complex data not supported\n"),
    ],
)
def test_an_array_is_not_poured_into_the_error(tmp_path, array, said):
    np.save(tmp_path / "x.npy", array)
    line = fails("fit", tmp_path / "x.npy", "-o", tmp_path / "m")
    assert line.startswith(said)
    assert len(line) < 300
