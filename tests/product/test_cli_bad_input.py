"""What the command line says to bad input: one line, and nothing is left half done."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.product.conftest import ENVIRONMENT, fails, misused, real, table, works

import anograd as ag
from anograd import cli

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.npy", None, "there is no file or folder"),
        ("x.txt", b"1", "ends in '.txt', which cannot be read; wanted is x.npy, x.npz:key"),
        ("x.npy", 100, "could not be read, it is damaged or cut short"),
        ("x.npz", 100, "could not be read, it is damaged or cut short"),
        ("x.parquet", 100, "could not be read, it is damaged or cut short"),
    ],
)
def test_unreadable_files(place, images_model, tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else (place / name).read_bytes()[:content])
    before = set(tmp_path.iterdir())
    for line in (
        fails("fit", path, "-o", tmp_path / "deep" / "model"),
        fails("score", images_model, path, "-o", tmp_path / "scores.csv"),
    ):
        assert said in line
        assert name in line
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x;y\n1,5;2\n", "has ';' between its columns, and commas are wanted: polars.read_csv(FILE, "
                         "separator=';').write_csv('commas.csv'), decimal_comma=True for numbers like 1,5"),
        (b"x\ty\n1\t2\n", "has '\\t' between its columns, and commas are wanted"),
        ("x,city\n1,Köln\n".encode("latin-1"), "is no text in UTF-8; if it is in Latin-1: iconv -f latin1"),
    ],
)  # fmt: skip
def test_csv_as_other_programs_write_it(table_model, tmp_path, content, said):
    """The message tells what to do about it, when fitting and when scoring."""
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    assert said in fails("fit", path, "-o", tmp_path / "model")
    if b"," not in content.partition(b"\n")[0]:
        assert said in fails("score", table_model, path, "-o", tmp_path / "scores.csv")


def test_a_damaged_picture_is_named(place, tmp_path):
    whole = (place / "good" / "line 2" / "00.png").read_bytes()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "0.png").write_bytes(whole[:60])
    line = fails("fit", tmp_path / "parts", "-o", tmp_path / "model")
    assert "the image" in line
    assert "0.png' could not be read, it is damaged or cut short" in line


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_name_that_is_not_in_utf_8_is_no_damage(tmp_path, ending):
    path = tmp_path / os.fsdecode(b"gr\xf6sse." + ending.encode())
    frame = pl.DataFrame({"x": [1.0, 2.0] * 10})
    (frame.write_csv if ending == "csv" else frame.write_parquet)(tmp_path / "x")
    (tmp_path / "x").rename(path)
    line = fails("fit", path, "-o", tmp_path / "model")
    assert "is not in UTF-8, and polars opens no such file: give it another" in line


def test_nan_is_named_by_row_and_column(place, tmp_path):
    text = (place / "x.csv").read_text().splitlines()
    text[4] = "," + text[4].partition(",")[2]
    (tmp_path / "x.csv").write_text("\n".join(text))
    line = fails("fit", tmp_path / "x.csv", "-o", tmp_path / "model", "--label", "class", "--normal", 0)
    assert "X holds NaN at row 3, column 0 ('size'), counted from 0 (1 such cells in all)" in line
    assert "missing='impute'" in line
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
    works("fit", tmp_path / "x.csv", "-o", tmp_path / "model", "--label", "class", "--normal", 0,
          "--missing", "impute", "--epochs", 1)  # fmt: skip


def test_other_rows_at_scoring(place, images_model, table_model, tmp_path):
    out = tmp_path / "scores.csv"
    frame = pl.read_csv(place / "x.csv")

    def given(name: str, X: object) -> Path:
        path = tmp_path / name
        X.write_csv(path) if isinstance(X, pl.DataFrame) else np.save(path, X)
        return path

    line = fails("score", table_model, given("a.csv", frame.select("maker", "size")), "-o", out)
    assert "must be in the same order as they were in fit" in line
    assert "polars.read_csv('FILE').select(*N, polars.exclude(N)).write_csv('ordered.csv')" in line
    line = fails("score", table_model, given("b.csv", frame.select("size")), "-o", out)
    assert "seen at fit time, yet now missing: - maker" in line
    line = fails("score", table_model, place / "x.csv", "-o", out, "--label", "kind")
    assert "has no column 'kind' to leave out, it has 'size', 'maker', 'class'" in line
    words = frame.drop("class").with_columns(size=pl.lit("large"))
    line = fails("score", table_model, given("c.csv", words), "-o", out)
    assert "row 0 of '" in line
    assert "cannot be scored: 'large' in column 'size' is no number (it is large,abel)" in line
    assert "let such rows go to a file and the others be scored: --rejects rejects.csv" in line
    words.write_parquet(tmp_path / "c.parquet")
    line = fails("score", table_model, tmp_path / "c.parquet", "-o", out)
    assert "column 'size' held numbers in fit, but holds categories now" in line
    line = fails("score", images_model, given("a.npy", np.zeros((2, 9, 8), np.uint8)), "-o", out)
    assert "the rows have shape 1 x 9 x 8, but the detector was fitted on 1 x 8 x 8" in line
    line = fails("score", images_model, given("b.npy", np.zeros((2, 8, 8))), "-o", out)
    assert "the images are float64 but the detector was fitted on integers" in line
    line = fails("score", images_model, place / "x.npy", "-o", out, "--label", "class")
    assert "--label leaves out a column, but" in line
    assert not out.exists()


def test_an_unseen_category_has_a_finite_score(place, table_model, tmp_path):
    frame = pl.read_csv(place / "x.csv").drop("class").with_columns(maker=pl.lit("unheard of"))
    frame.write_csv(tmp_path / "x.csv")
    works("score", table_model, tmp_path / "x.csv", "-o", tmp_path / "scores.csv")
    assert np.isfinite(table(tmp_path / "scores.csv")["score"]).all()


@pytest.mark.parametrize(
    ("data", "label", "said"),
    [
        ("x.csv", ["class", "--normal", "7"], "--normal 7 does not occur in 'class', which holds 0, 1, 2"),
        ("x.csv", ["class"], "'class' holds 0, 1, 2; where labels are not 0 and 1 (1 is a known anomaly)"),
        ("x.csv", ["maker"], "say which are normal: --normal VALUE, such as --normal "),
        ("x.csv", ["kind"], "has no column 'kind', it has 'size', 'maker', 'class'; --label takes one of"),
        ("x.npy", ["few.npy"], "have the shape (3,), but"),
        ("x.npy", ["none.npy"], "there is no file or folder"),
        ("x.npy", ["gap.npy"], "has no label in row 2, counted from 0"),
        ("x.npy", ["all.npy"], "it marks all 60 rows; normal rows are needed"),
    ],
)
def test_bad_labels(place, tmp_path, data, label, said):
    np.save(place / "few.npy", np.zeros(3))
    np.save(place / "gap.npy", np.where(np.arange(60) == 2, np.nan, 0.0))
    np.save(place / "all.npy", np.ones(60))
    name = place / label[0] if label[0].endswith(".npy") else label[0]
    assert said in fails("fit", place / data, "-o", tmp_path / "model", "--label", name, *label[1:])
    assert not list(tmp_path.iterdir())


def test_no_such_device(place, tmp_path):
    line = fails("fit", place / "x.npy", "-o", tmp_path / "model", "--device", "cuda:99")
    assert "device='cuda:99' is not to be had here; there is cpu" in line
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_is_refused_before_training(place, images_model, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.fit, "_fit", None)  # whoever comes as far as this trains
    line = fails("fit", place / "x.npy", "-o", images_model)
    assert "holds a model already; give another name with -o, or --force to replace it" in line
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").touch()
    (tmp_path / "file").touch()
    for force in ([], ["--force"]):
        line = fails("fit", place / "x.npy", "-o", tmp_path / "photos", *force)
        assert "holds something other than a model (a.txt), and is left as it is; give a new name" in line
        line = fails("fit", place / "x.npy", "-o", tmp_path / "file", *force)
        assert "is a file; a model is saved as a folder" in line
        line = fails("fit", place / "x.npy", "-o", tmp_path / "file" / "model", *force)
        assert "nothing can be written in the folder" in line
    line = fails("score", images_model, place / "x.npy", "-o", tmp_path)
    assert "is a folder; a file is wanted, such as -o" in line
    line = fails("score", images_model, place / "x.npy", "-o", place / "x.npy")
    assert "is the file of the rows, which would be lost" in line
    line = fails("score", images_model, place / "x.npz:x", "-o", place / "x.npz")
    assert "is the file of the rows, which would be lost" in line
    line = fails("score", images_model, place / "x.npy", "-o", tmp_path / "none" / "scores.csv")
    assert "nothing can be written in the folder" in line


def test_force_replaces_a_model(place, tmp_path):
    works("fit", place / "x.npy", "-o", tmp_path / "model", "--epochs", 1)
    works("fit", place / "x.npy", "-o", tmp_path / "model", "--epochs", 2, "--force")
    assert ag.load(tmp_path / "model").get_params()["epochs"] == 2


def full(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk(place, images_model, tmp_path, monkeypatch):
    arguments = ["fit", place / "x.npy", "-o", tmp_path / "deep" / "model", "--epochs", 2]

    with monkeypatch.context() as patched:
        patched.setattr("anograd.whole.os.fsync", full)
        line = fails(*arguments)
        assert "model.partial' was not written, nothing is half written: No space left on device" in line
        assert not list(tmp_path.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr("anograd.store.Path.write_bytes", full)
        line = fails(*arguments)
        assert "nothing is half written: No space left on device; free some space or save elsewhere" in line
        assert "what was trained is kept in" in line
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model.partial"]
    again = works(*arguments)
    assert "going on from epoch 2" in again.stderr
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]
    shutil.rmtree(tmp_path / "deep")
    monkeypatch.setattr("anograd.whole.os.fsync", full)
    line = fails("score", images_model, place / "x.npy", "-o", tmp_path / "scores.csv")
    assert "scores.csv' was not written, nothing is half written: No space left on device" in line
    assert not list(tmp_path.iterdir())


def test_models_that_are_none(place, images_model, tmp_path):
    for command in (["info", tmp_path / "none"], ["score", tmp_path / "none", place / "x.npy", "-o", "-"]):
        assert "there is no folder" in fails(*command)
    (tmp_path / "empty").mkdir()
    assert "is not a model folder of anograd" in fails("info", tmp_path / "empty")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in images_model.iterdir():
        (damaged / path.name).write_bytes(
            path.read_bytes()[: 1000 if path.suffix == ".safetensors" else None]
        )
    for command in (["info", damaged], ["score", damaged, place / "x.npy", "-o", tmp_path / "s.csv"]):
        line = fails(*command)
        assert "is damaged: tensors.safetensors has 1000 bytes and should have" in line
    assert not (tmp_path / "s.csv").exists()


def test_options_that_make_no_sense(place, images_model, tmp_path):
    assert "--normal: it says which values of --label are normal; give --label, too" in misused(
        "fit", place / "x.npy", "-o", tmp_path / "model", "--normal", 1
    )
    assert "there is no detector 'r2d2'; did you mean 'r2ad2'?" in misused(
        "fit", place / "x.npy", "-o", tmp_path / "model", "--detector", "r2d2"
    )
    assert "one of --alpha and --budget is wanted, not both" in misused(
        "score", images_model, place / "x.npy", "-o", "-", "--alpha", 0.1, "--budget", 3
    )
    assert "5.0 was given; a rate between 0 and 1 is wanted, such as 0.05" in misused(
        "score", images_model, place / "x.npy", "-o", "-", "--alpha", 5
    )


def test_an_error_in_a_real_process_is_one_line(tmp_path):
    told = real("fit", tmp_path / "none.npy", "-o", tmp_path / "model")
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.startswith("error: there is no file or folder ")
    assert told.stderr.count("\n") == 1


def test_without_the_extra_the_command_says_which_one_it_needs():
    code = "import sys; sys.modules.update(typer=None, rich=None); import anograd.cli"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert result.returncode == 1
    assert result.stderr == "error: the command line needs typer and rich: pip install 'anograd[cli]'\n"
