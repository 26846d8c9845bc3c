"""The command line with tables: Parquet read and written in pieces, columns left out, evaluation."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.product.conftest import ENVIRONMENT, fails, misused, run, table, works

import anograd as ag
from anograd import cli
from anograd.cli.fit import OF_THE_COMMAND, OPTIONS
from anograd.detectors import DETECTORS

pytestmark = pytest.mark.usefixtures("one_thread")
LABEL = ("--label", "class", "--normal", 0, "--normal", 1)


R2AD2 = ("--detector", "r2ad2", "--epochs", 1)


def test_a_detector_gets_its_own_options_only(place, tmp_path):
    fit = ("fit", place / "x.parquet", "-o", tmp_path / "model", *LABEL)
    said = misused(*fit, *R2AD2, "--set", "sketchh=8")
    assert "--set: there is no parameter of r2ad2 'sketchh'; did you mean 'sketch'?" in said
    assert "it has, with their defaults: checkpoints=3, columns=true," in said
    assert "random_state" not in said
    said = misused(*fit, *R2AD2, "--set", "random_state=8")
    assert "--set random_state: it has an option: --seed 8" in said
    assert "'sketch' was given; NAME=VALUE is wanted, such as holdout=0.2" in misused(*fit, "--set", "sketch")
    said = misused(*fit, "--set", "beta=0.1")  # a table: the default is r2ad2
    assert "there is no parameter of r2ad2 'beta'" in said
    said = misused(
        "fit", place / "x.parquet", "-o", tmp_path / "model", "--detector", "gran", "--as-published"
    )
    assert "published settings are those of gradcon, r2ad2, gradscoretest; leave it out for gran" in said
    said = misused(*fit, "--for-images")
    assert "--for-images: the rows are a table: write --for-tables" in said
    said = misused(*fit, "--detector", "gradcon", "--for-tables")
    assert "--for-tables: settings for tables are those of gradscoretest; leave it out for gradcon" in said
    said = misused(*fit, "--detector", "gradscoretest", "--for-images", "--as-published")
    assert "one excludes the other: leave out --for-images" in said
    assert "memory='much' is no amount of memory" in fails(*fit, *R2AD2, "--memory", "much")
    assert not list(tmp_path.iterdir())


def test_settings_for_tables_are_those_of_python(place, tmp_path):
    told = works("fit", place / "x.parquet", "-o", tmp_path / "model", *LABEL, "--for-tables", "--epochs", 1)
    assert told.stdout.startswith("detector: gradscoretest, as for a table")
    detector = ag.load(tmp_path / "model")
    assert detector.network_["kind"] == "masked"
    assert (
        ag.GradScoreTest.for_tables(epochs=1, random_state=0).get_params().items()
        >= {
            name: value
            for name, value in detector.get_params().items()
            if name not in ("device", "checkpoint")
        }.items()
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_has_the_options_of_the_command(name):
    assert {*OPTIONS, *OF_THE_COMMAND} <= set(DETECTORS[name]().get_params(deep=False))


def test_known_anomalies_are_learned_from(place, tmp_path):
    told = works("fit", place / "x.parquet", "-o", tmp_path / "model", *LABEL, *R2AD2, "--memory", "1MiB")
    assert told.stdout.splitlines()[0].endswith("; 20 known anomalies learned from")
    assert ag.load(tmp_path / "model").get_params()["memory"] == "1MiB"
    told = works("info", tmp_path / "model").stdout
    assert "20 learned from" in told
    assert "widths" not in told
    assert ", 0 weights" not in told


def test_more_epochs_are_advised_only_where_one_was_chosen(place, tmp_path):
    hint = "; the last one was the best, so more --epochs may help"
    fit = ("fit", place / "x.parquet", "-o", tmp_path / "model", "--force")
    normal = tmp_path / "normal.parquet"
    pl.read_parquet(place / "x.parquet").filter(pl.col("class") < 2).drop("class").write_parquet(normal)
    # Nothing is left out to choose by: without labels, and as published, the last epoch is kept as it is.
    without = ("fit", normal, "-o", tmp_path / "without", "--force", *R2AD2)
    networks = works(*without, "--set", "trees=null").stdout.splitlines()
    published = works(*fit, *LABEL, *R2AD2, "--as-published").stdout.splitlines()
    assert networks[1] == published[1] == "epoch 1 kept, of 1"
    # Without labels it is trees that learn, which have no epochs.
    assert works(*without).stdout.splitlines()[1].startswith("the smallest reachable p value is")
    for which in (R2AD2, ("--detector", "gradcon", "--epochs", 1)):
        assert works(*fit, *LABEL, *which).stdout.splitlines()[1] == f"epoch 1 kept, of 1{hint}"


def test_published_settings_of_either(place, tmp_path):
    works("fit", place / "x.parquet", "-o", tmp_path / "model", *LABEL, *R2AD2, "--as-published")
    published = ag.load(tmp_path / "model").get_params()
    assert (published["training"], published["recurrent"], published["epochs"]) == ("published", True, 1)


@pytest.mark.parametrize("epoch", [2, 20, 21])  # of the autoencoder, its last, of the alarm networks
def test_an_interrupted_fit_of_two_stages_goes_on(place, tmp_path, monkeypatch, epoch):
    @contextmanager
    def stopping(epochs: int):
        def show(found):
            if found["epoch"] == epoch:
                raise KeyboardInterrupt

        yield show

    arguments = ("fit", place / "x.parquet", *LABEL, *R2AD2[:2], "--epochs", 2, "-o")
    works(*arguments, tmp_path / "whole")
    partial = tmp_path / "model.partial"
    with monkeypatch.context() as patch:
        patch.setattr(cli.fit, "moving", stopping)
        told = run(*arguments, tmp_path / "model")
    assert told.exit_code == 130
    assert told.stderr == (
        f"stopped after epoch {epoch} of 22; what was trained is kept in '{partial}': "
        "the same command goes on from there\n"
    )
    line = fails(*arguments, tmp_path / "model", "--seed", 1)
    assert "model.partial was left by a fit with other data or settings: remove it to start afresh" in line
    told = works(*arguments, tmp_path / "model")
    assert told.stderr == f"going on from epoch {epoch}, kept in '{partial}'\n"
    assert not partial.exists()
    tensors = [(tmp_path / name / "tensors.safetensors").read_bytes() for name in ("model", "whole")]
    assert tensors[0] == tensors[1]
    rows = pl.read_parquet(place / "x.parquet").drop("class")
    model, whole = ag.load(tmp_path / "model"), ag.load(tmp_path / "whole")
    assert (model.history_, model.get_params()) == (whole.history_, whole.get_params())
    np.testing.assert_array_equal(model.p_values(rows), whole.p_values(rows))


def test_a_full_disk_loses_nothing_that_was_trained(place, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    partial = tmp_path / "model.partial"
    with monkeypatch.context() as patch:
        patch.setattr("anograd.store.Path.write_bytes", full)
        line = fails("fit", place / "x.parquet", "-o", tmp_path / "model", *LABEL, *R2AD2)
    assert "No space left on device" in line
    assert f"what was trained is kept in '{partial}': the same command goes on from there" in line
    assert list(tmp_path.iterdir()) == [partial]
    works("fit", place / "x.parquet", "-o", tmp_path / "model", *LABEL, *R2AD2)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def with_id(place: Path, folder: Path) -> Path:
    frame = pl.read_parquet(place / "x.parquet")
    ids = pl.Series("id", [f"part {i}" for i in range(len(frame))])
    frame.with_columns(ids, shift=pl.lit(1)).write_parquet(folder / "id.parquet")
    return folder / "id.parquet"


def test_columns_left_out_at_fit_are_ignored_at_scoring(place, tmp_path):
    data, model, scores = with_id(place, tmp_path), tmp_path / "model", tmp_path / "scores.csv"
    line = fails("fit", data, "-o", model)
    assert "column 'id' looks like text or an identifier" in line
    assert "or --drop id" in line
    works("fit", data, "-o", model, *LABEL, "--drop", "id", "--drop", "shift", "--drop", "id", "--epochs", 1)
    assert ag.load(model).feature_names_in_.tolist() == ["size", "maker"]
    told = works("score", model, data, "-o", scores, "--budget", 3)
    assert told.stderr.splitlines()[0] == (
        f"warning: '{data}' has columns that the model was not fitted on, and they are left out: 'class', "
        "'id', 'shift'"
    )
    told = works("score", model, place / "x.parquet", "-o", tmp_path / "same.csv", "--label", "class",
                 "--budget", 3)  # fmt: skip
    assert "warning" not in told.stderr
    assert table(scores) == table(tmp_path / "same.csv")


def test_columns_to_leave_out_must_be_there(place, tmp_path):
    line = fails("fit", place / "x.csv", "-o", tmp_path / "model", "--drop", "kind")
    assert "has no column 'kind' to leave out, it has 'size', 'maker', 'class'; give one of them" in line
    line = fails("fit", place / "x.npy", "-o", tmp_path / "model", "--drop", "kind")
    assert "--drop leaves out a column, but" in line
    line = fails("fit", place / "x.csv", "-o", tmp_path / "model", "--drop", "class", "--label", "class")
    assert "has no column 'class', it has 'size', 'maker'; --label takes one of them" in line
    assert not list(tmp_path.iterdir())


def test_labels_that_mark_nothing_or_all(place, tmp_path):
    frame = pl.read_parquet(place / "x.parquet")
    for value, ending in ((0, "csv"), (1, "parquet")):
        one = frame.with_columns(pl.lit(value).alias("class"))
        getattr(one, f"write_{ending}")(tmp_path / f"{value}.{ending}")
    told = works("fit", tmp_path / "0.csv", "-o", tmp_path / "model", "--label", "class")
    assert told.stderr == "warning: 'class' marks no anomaly: all rows count as normal\n"
    told = works("fit", tmp_path / "1.parquet", "-o", tmp_path / "model", "--label", "class", "--normal", 1,
                 "--force")  # fmt: skip
    assert told.stderr == "warning: 'class' marks no anomaly: all rows count as normal\n"
    line = fails("fit", tmp_path / "1.parquet", "-o", tmp_path / "other", "--label", "class")
    assert "it marks all 60 rows; normal rows are needed to fit" in line


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Boolean])
def test_label_columns_of_any_kind(place, tmp_path, kind):
    frame = pl.read_parquet(place / "x.parquet")
    text = pl.Series("class", np.where(np.arange(60) < 45, "true", "false"))
    labels = text == "true" if kind == pl.Boolean else text.cast(kind)
    frame.with_columns(labels.alias("class")).write_parquet(tmp_path / "x.parquet")
    told = works("fit", tmp_path / "x.parquet", "-o", tmp_path / "model", "--label", "class", "--normal",
                 "true", "--epochs", 1)  # fmt: skip
    assert "15 known anomalies learned from" in told.stdout
    gap = frame.with_columns(pl.when(pl.int_range(60) != 7).then(labels).alias("class"))
    gap.write_parquet(tmp_path / "gap.parquet")
    line = fails("fit", tmp_path / "gap.parquet", "-o", tmp_path / "other", "--label", "class")
    assert "'class' has no label in row 7, counted from 0" in line


def test_labels_of_a_database(place, tmp_path):
    frame = pl.read_parquet(place / "x.parquet")
    labels = (frame["class"] == 2).cast(pl.Int8)
    for name, column in {"decimal": labels.cast(pl.Decimal(4, 2)), "list": labels.reshape((60, 1))}.items():
        frame.with_columns(column.alias("class")).write_parquet(tmp_path / f"{name}.parquet")
    told = works("fit", tmp_path / "decimal.parquet", "-o", tmp_path / "m", "--label", "class", "--normal",
                 "0", "--epochs", 1)  # fmt: skip
    assert "20 known anomalies learned from" in told.stdout
    line = fails("fit", tmp_path / "list.parquet", "-o", tmp_path / "other", "--label", "class")
    assert "'class' is of type Array(Int8, shape=(1,)); one number or word a row is wanted" in line


def test_scores_as_parquet(place, table_model, tmp_path):
    arguments = ("score", table_model, place / "x.parquet", "--label", "class", "-o")
    works(*arguments, tmp_path / "scores.csv")
    told = works(*arguments, tmp_path / "scores.parquet")
    assert told.stderr.endswith(f"written to {tmp_path / 'scores.parquet'}\n")
    found, expected = pl.read_parquet(tmp_path / "scores.parquet"), table(tmp_path / "scores.csv")
    assert found.columns == list(expected)
    assert found["row"].to_list() == list(range(60))
    for name in ("score", "p_value", "anomaly"):
        assert found[name].to_list() == expected[name]


def test_file_names_are_rows_in_parquet(place, images_model, tmp_path):
    works("score", images_model, place / "good", "-o", tmp_path / "scores.parquet")
    assert pl.read_parquet(tmp_path / "scores.parquet")["row"][20] == "line, 1/01.png"


def test_scores_of_other_endings_are_refused(place, table_model, tmp_path, monkeypatch):
    arguments = ("score", table_model, place / "x.csv", "-o")
    line = fails(*arguments, tmp_path / "scores.txt")
    assert "scores.txt' ends in '.txt', which cannot be written; wanted is x.csv, x.parquet, or -" in line
    assert "ends in ''" in fails(*arguments, tmp_path / "scores")
    monkeypatch.setattr("anograd.cli.score.importlib.util.find_spec", lambda name: None)
    line = fails(*arguments, tmp_path / "scores.parquet")
    assert "scores.parquet' needs polars: pip install 'anograd[tables]', or write x.csv" in line
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_parquet(place, table_model, tmp_path, monkeypatch):
    def full(*args: object, **more: object) -> None:
        raise pl.exceptions.ComputeError(os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", full)
    line = fails("score", table_model, place / "x.parquet", "-o", tmp_path / "s.parquet", "--label", "class",
                 "--budget", 3)  # fmt: skip
    assert "s.parquet' was not written, nothing is half written: No space left on device" in line
    assert not list(tmp_path.iterdir())


def test_pieces_of_a_long_csv_fit_together(place, table_model, tmp_path, monkeypatch):
    arguments = ("score", table_model, place / "x.parquet", "--label", "class", "-o")
    works(*arguments, tmp_path / "whole.csv")
    monkeypatch.setattr("anograd.stream.partial.READ", 7)
    monkeypatch.setattr("anograd.stream.pieces.FEWEST", 13)
    monkeypatch.setattr("anograd.stream.pieces.CELLS", 13)
    works(*arguments, tmp_path / "pieces.csv")
    whole, pieces = table(tmp_path / "whole.csv"), table(tmp_path / "pieces.csv")
    assert pieces["row"] == whole["row"]
    assert pieces["score"] == whole["score"]
    assert works(*arguments, "-").stdout == (tmp_path / "pieces.csv").read_text()


def test_a_parquet_file_is_not_read_whole(place, table_model, tmp_path, monkeypatch):
    def never(*args: object, **more: object) -> None:
        raise AssertionError

    monkeypatch.setattr(pl, "read_parquet", never)
    works("fit", place / "x.parquet", "-o", tmp_path / "model", *LABEL, "--epochs", 1)
    works("score", table_model, place / "x.parquet", "-o", tmp_path / "scores.csv", "--label", "class")


def test_brackets_in_a_name_are_no_pattern(place, table_model, tmp_path):
    odd = tmp_path / "x[1].parquet"
    odd.write_bytes((place / "x.parquet").read_bytes())
    works("score", table_model, odd, "-o", tmp_path / "scores.csv", "--label", "class")


def test_evaluation_against_labels(place, table_model, tmp_path):
    arguments = ("evaluate", table_model, place / "x.parquet", *LABEL)
    told = works(*arguments, "--budget", 9, "-o", tmp_path / "report.json")
    assert told.stderr == ""
    frame = pl.read_parquet(place / "x.parquet")
    odd, X = frame["class"].to_numpy() == 2, frame.drop("class")
    detector = ag.load(table_model)
    scores, twin, alarms = detector.anomaly_score(X), detector.twin_score(X), detector.detect(X, budget=9)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["rule"] == {"budget": 9}
    assert (found["normal"], found["anomalous"], found["alarms"]) == (40, 20, alarms.sum())
    assert found["found"] == (alarms & odd).sum()
    assert found["false_alarm_rate"] == alarms[~odd].mean()
    assert found["interval"][0] <= found["false_alarm_rate"] <= found["interval"][1]
    np.testing.assert_allclose(found["auroc"], roc_auc_score(odd, scores))
    np.testing.assert_allclose(found["average_precision"], average_precision_score(odd, scores))
    np.testing.assert_allclose(found["twin"]["auroc"], roc_auc_score(odd, twin))
    lines = told.stdout.splitlines()
    assert lines[0] == "rows               40 normal, 20 anomalous"
    assert lines[1] == (
        f"AUROC              {found['auroc']:.4f} ({found['twin']['auroc']:.4f} without gradients)"
    )
    assert lines[3] == "rule               budget 9"
    assert lines[6].startswith("false-alarm rate   ")
    assert "rule               alpha 0.05" in works(*arguments).stdout


def test_evaluation_ignores_other_columns_and_takes_label_files(place, table_model, images_model, tmp_path):
    told = works("evaluate", table_model, with_id(place, tmp_path), *LABEL, "--budget", 3)
    assert told.stderr.startswith("warning: ")
    assert told.stderr.endswith("they are left out: 'id', 'shift'\n")
    told = works("evaluate", images_model, place / "x.npz:x", "--label", place / "x.npz:y", "--alpha", 0.1)
    assert "anomalies found    1.000: 10 of 10" in told.stdout
    signs = works("evaluate", images_model, place / "x.npy", "--label", place / "signs.npy", "--alpha", 0.1)
    assert signs.stdout == told.stdout
    words = works("evaluate", images_model, place / "x.npy", "--label", place / "x.npz:words", "--normal",
                  "good", "--alpha", 0.1)  # fmt: skip
    assert words.stdout == told.stdout


def test_evaluations_that_make_no_sense(place, table_model, tmp_path):
    data = place / "x.csv"
    everything = [*LABEL, "--normal", 2]
    line = fails("evaluate", table_model, data, *everything)
    assert "'class' tells all 60 rows to be of one kind, and an evaluation compares" in line
    assert "say which values are normal (--normal VALUE), or only score the rows: anograd score" in line
    assert "has no column 'kind'" in fails("evaluate", table_model, data, "--label", "kind")
    assert "say which are normal" in fails("evaluate", table_model, data, "--label", "class")
    assert "Missing option '--label'" in misused("evaluate", table_model, data)
    assert "one of --alpha and --fdr" in misused(
        "evaluate", table_model, data, *LABEL, "--alpha", 0.1, "--fdr", 0.1
    )
    line = fails("evaluate", table_model, data, *LABEL, "-o", tmp_path)
    assert line.endswith(f"such as -o {tmp_path / 'report.json'}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read as Linux tells it")
def test_the_memory_of_a_stream_is_flat(tmp_path):
    """Encode a table into rows of which some fit, read them all in any order, and score it in pieces."""
    code = """
import resource, sys
import numpy as np, polars, torch
from sklearn.base import BaseEstimator
from anograd.detectors.rows import encode
X = polars.scan_parquet(sys.argv[1])
n = X.select(polars.len()).collect().item()
encoder, rows = encode(BaseEstimator(), X, np.ones(n, dtype=bool), raw=False, missing="refuse", memory=2**20)
for batch in torch.split(torch.randperm(n), 256):
    rows.take(batch)
total = sum(float(piece.sum()) for piece in encoder.pieces(BaseEstimator(), X, 2**20))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for n in (10_000, 500_000):
        draw = np.random.default_rng(0)
        path = tmp_path / f"{n}.parquet"
        pl.DataFrame({f"c{i}": draw.normal(size=n) for i in range(10)}).write_parquet(path)
        told = subprocess.run(
            [sys.executable, "-c", code, path], env=ENVIRONMENT, text=True, capture_output=True, check=True
        )
        peaks.append(int(told.stdout))
    assert peaks[1] < 1.15 * peaks[0]
