"""``anograd score`` on long tables: rejects, pipes, parts, and runs that were killed at any moment."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.product.conftest import ENVIRONMENT, fails, run, table, works

import anograd as ag
from anograd.stream import delimited, partial, pieces
from anograd.stream.delimited import Delimited
from anograd.stream.pieces import Place

LINES = [
    b"10.5,abel\n",
    b"9.25,beta,9\n",  # 1: too many cells
    b"x7,abel\n",  # 2: a word for a number
    b"11\n",  # 3: too few cells
    b',"be,ta"\n',  # 4: nothing where a number is wanted
    b'10,"a\nb"\n',
    b"inf,abel\n",  # 6
    b'8.5,5" pipe\n',
    b"9,\xff\n",  # 8: no UTF-8
    b'9.5,"open\n',  # 9: a quote that is never closed
    b"10,abel",
]
BAD = {1: "3 cells, 2 are wanted", 2: "'x7' in column 'size' is no number", 3: "1 cell, 2 are wanted",
       4: "an empty cell or NaN in column 'size'", 6: "infinity in column 'size'", 8: "no text in UTF-8",
       7: "a quote out of place, or left open", 9: "a quote out of place, or left open"}  # fmt: skip


@pytest.fixture(scope="module")
def model(place) -> Path:
    works("fit", place / "x.csv", "-o", place / "streams", "--detector", "gradcon", "--epochs", 2, "--label",
          "class", "--normal", 0, "--normal", 1)  # fmt: skip
    return place / "streams"


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of a few rows, each of which is vouched for at once."""
    monkeypatch.setattr(pieces, "FEWEST", 7)
    monkeypatch.setattr(pieces, "CELLS", 7)
    monkeypatch.setattr(delimited, "BLOCK", 64)
    monkeypatch.setattr(delimited, "CELL", 1)
    monkeypatch.setattr(partial, "EVERY", -1.0)


@pytest.fixture
def rows(tmp_path) -> pl.DataFrame:
    draw = np.random.default_rng(1)
    frame = pl.DataFrame({"size": draw.normal(10, 1, 300), "maker": draw.choice(["abel", "beta"], 300)})
    frame.write_csv(tmp_path / "x.csv")
    frame.write_parquet(tmp_path / "x.parquet", row_group_size=100)
    return frame


def inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_stray_quotes_swallow_no_lines(model, tmp_path):
    lines = ["10,abel", '"open,abel', "10,abel", "10,abel", '10,"5,abel', "10,abel"]
    data, scores, aside = tmp_path / "x.csv", tmp_path / "scores.csv", tmp_path / "rejects.csv"
    data.write_text("\n".join(["size,maker", *lines, ""]))
    told = works("score", model, data, "-o", scores, "--rejects", aside, "--alpha", 0.2)
    assert told.stderr.startswith("6 rows, 2 of them rejected")
    assert [line[:2] for line in aside.read_text().splitlines()[1:]] == ["1,", "4,"]
    assert aside.read_text().count("a quote out of place, or left open") == 2


def test_rows_that_cannot_be_read_or_scored_are_put_aside(model, tmp_path):
    data, scores, aside = tmp_path / "x.csv", tmp_path / "scores.csv", tmp_path / "rejects.csv"
    data.write_bytes(b"size,maker\n" + b"".join(LINES))
    told = works("score", model, data, "-o", scores, "--rejects", aside, "--alpha", 0.2)
    assert told.stderr.startswith(f"11 rows, 8 of them rejected (see {aside}), ")
    found = table(scores)
    assert found["row"] == ["0", "5", "10"]
    sizes, makers = [10.5, 10.0, 10.0], ["abel", "a\nb", "abel"]
    alone = ag.load(model).anomaly_score(pl.DataFrame({"size": sizes, "maker": makers}))
    np.testing.assert_allclose(found["score"], alone, rtol=1e-5)
    with aside.open(newline="") as file:
        rejected = {int(row["row"]): row for row in csv.DictReader(file)}
    assert list(rejected) == sorted(BAD)
    for row, why in BAD.items():
        assert why in rejected[row]["reason"]
        line = LINES[row].decode(errors="backslashreplace").rstrip("\n")
        assert rejected[row]["line"] == line
    line = fails("score", model, data, "-o", tmp_path / "other.csv")
    assert "row 1 of '" in line
    assert "cannot be scored: 3 cells, 2 are wanted (it is 9.25,beta,9); mend or drop it" in line
    assert inside(tmp_path) == ["rejects.csv", "scores.csv", "x.csv"]


def test_rejected_rows_of_parquet_and_arrays_are_written_as_csv(model, array_detector, tmp_path):
    frame = pl.DataFrame({"size": [10.0, None, 9.0, float("inf")], "maker": ["abel", "a,b", None, "beta"]})
    frame.write_parquet(tmp_path / "x.parquet")
    works("score", model, tmp_path / "x.parquet", "-o", tmp_path / "s.csv", "--rejects",
          tmp_path / "r.csv", "--budget", 2)  # fmt: skip
    assert table(tmp_path / "s.csv")["row"] == ["0"]
    assert pl.read_csv(tmp_path / "r.csv").rows() == [
        (1, "an empty cell or NaN in column 'size'", ',"a,b"'),
        (2, "an empty cell or NaN in column 'maker'", "9.0,"),
        (3, "infinity in column 'size'", "inf,beta"),
    ]
    array_detector.save(tmp_path / "model")  # it fills empty cells
    np.save(tmp_path / "x.npy", [[0.0, 1.0, np.nan], [np.inf, 0.0, 0.0]])
    works(
        "score",
        tmp_path / "model",
        tmp_path / "x.npy",
        "-o",
        tmp_path / "s.csv",
        "--rejects",
        tmp_path / "r.csv",
    )
    assert table(tmp_path / "s.csv")["row"] == ["0"]
    assert (tmp_path / "r.csv").read_text().splitlines()[1:] == ["1,infinity in column '0',\"inf,0.0,0.0\""]
    line = fails("score", tmp_path / "model", tmp_path / "x.npy", "-o", tmp_path / "s.csv")
    assert "row 1 of '" in line


def test_every_way_in_and_out_gives_the_same(model, rows, tmp_path, small_pieces):
    detector = ag.load(model)
    works("score", model, tmp_path / "x.csv", "-o", tmp_path / "s.csv", "--alpha", 0.2)
    found = table(tmp_path / "s.csv")
    assert found["row"] == [str(i) for i in range(300)]
    np.testing.assert_allclose(found["score"], detector.anomaly_score(rows), rtol=1e-5)
    np.testing.assert_array_equal(found["anomaly"], detector.calibration_.detect(found["score"], alpha=0.2))
    parts = tmp_path / "parts" / "day=1"
    parts.mkdir(parents=True)
    (tmp_path / "parts" / "_committed.parquet").write_text("not one of them")
    for i, start in enumerate(range(0, 300, 77)):
        rows.slice(start, 77).write_parquet(parts / f"{i}.parquet", row_group_size=20)
    for data in ("x.parquet", "parts", "parts/day=1/*.parquet"):
        works("score", model, tmp_path / data, "-o", tmp_path / "t.csv", "--alpha", 0.2)
        assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "s.csv").read_bytes()
        told = works("score", model, tmp_path / data, "-o", "-", "--alpha", 0.2)
        assert told.stdout == (tmp_path / "s.csv").read_text()
    works("score", model, tmp_path / "parts", "-o", tmp_path / "s.parquet", "--alpha", 0.2)
    assert pl.read_parquet(tmp_path / "s.parquet")["score"].to_list() == found["score"]
    for rule in (("--fdr", 0.9), ("--budget", 20)):
        works("score", model, tmp_path / "x.csv", "-o", tmp_path / "t.csv", *rule)
        assert (
            works("score", model, tmp_path / "parts", "-o", "-", *rule).stdout
            == (tmp_path / "t.csv").read_text()
        )
        asked = {rule[0][2:]: rule[1]}
        judged = detector.calibration_.detect(found["score"], **asked)
        np.testing.assert_array_equal(table(tmp_path / "t.csv")["anomaly"], judged)


def test_standard_input_and_output_in_a_real_process(model, rows, tmp_path):
    with (tmp_path / "x.csv").open("rb") as file:
        command = [sys.executable, "-m", "anograd", "score", model, "-", "-o", "-", "--alpha", "0.2"]
        told = subprocess.run(command, env=ENVIRONMENT, stdin=file, capture_output=True, check=True)
    works("score", model, tmp_path / "x.csv", "-o", tmp_path / "s.csv", "--alpha", 0.2)
    assert told.stdout == (tmp_path / "s.csv").read_bytes()
    assert told.stderr.decode().startswith("300 rows, ")


@pytest.mark.parametrize("kind", [pl.Boolean, pl.Int8, pl.String])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_true_and_false_are_read_as_they_were_fitted(tmp_path, kind, ending):
    draw = np.random.default_rng(0)
    frame = pl.DataFrame({"vip": draw.random(80) < 0.5, "size": draw.normal(size=80)})
    model = ag.GradCon(epochs=1, random_state=0).fit(frame)
    model.save(tmp_path / "model")
    written, path = frame.with_columns(pl.col("vip").cast(kind)), tmp_path / f"x.{ending}"
    (written.write_csv if ending == "csv" else written.write_parquet)(path)
    works("score", tmp_path / "model", path, "-o", tmp_path / "s.csv")
    np.testing.assert_allclose(table(tmp_path / "s.csv")["score"], model.anomaly_score(frame), rtol=1e-5)
    given = json.loads(works("explain", tmp_path / "model", path, "--rows", "0,1", "--json").stdout)
    np.testing.assert_allclose([row["score"] for row in given["reasons"]], model.anomaly_score(frame)[:2])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "could not be read as CSV: its first line is empty; a line of names comes first"),
        (b"size,size\n1,2\n", "has more than one column named 'size'"),
        (b"size,maker\n", "holds no row; at least one is wanted"),
        (b"size,\xff\n", "is no text in UTF-8"),
    ],
)
def test_csv_without_rows_or_names(model, tmp_path, text, said):
    (tmp_path / "x.csv").write_bytes(text)
    assert said in fails("score", model, tmp_path / "x.csv", "-o", tmp_path / "s.csv")
    assert inside(tmp_path) == ["x.csv"]


def test_parts_that_differ_or_are_damaged_are_named_before_the_work(model, rows, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    arguments = ("score", model, folder, "-o", tmp_path / "s.csv")
    rows.write_parquet(folder / "0.parquet")
    rows.with_columns(pl.col("size").cast(pl.String)).write_parquet(folder / "1.parquet")
    line = fails(*arguments)
    assert "the columns change half-way: column 'size' is String in '" in line
    assert "1.parquet' and Float64 in '" in line
    rows.drop("maker").write_parquet(folder / "1.parquet")
    assert "column 'maker' is no such column in '" in fails(*arguments)
    (folder / "1.parquet").write_bytes((folder / "0.parquet").read_bytes()[:-20])
    line = fails(*arguments)
    assert "1.parquet' could not be read, it is damaged or cut short" in line
    assert inside(tmp_path) == ["parts", "x.csv", "x.parquet"]


def interrupted(monkeypatch, after: int, error: BaseException):
    """Let a run end with an error after so many pieces."""
    own, count = partial.Partial.add, [0]

    def add(self, *given):
        count[0] += 1
        if count[0] > after:
            raise error
        own(self, *given)

    monkeypatch.setattr(partial.Partial, "add", add)


@pytest.mark.parametrize("data", ["x.csv", "x.parquet"])
@pytest.mark.parametrize("rule", [("--alpha", 0.2), ("--budget", 9)])
def test_an_interrupted_run_goes_on_where_it_was(
    model, rows, tmp_path, small_pieces, monkeypatch, data, rule
):
    number = pl.int_range(pl.len())
    far = pl.when(number < 60).then(pl.col("size") * 1000).otherwise("size")  # a fifth, before the end
    spoiled = rows.with_columns(size=pl.when(number % 50 == 3).then(None).otherwise(far))
    spoiled.write_csv(tmp_path / "x.csv")
    spoiled.write_parquet(tmp_path / "x.parquet", row_group_size=100)
    scores, aside = tmp_path / "s.csv", tmp_path / "r.csv"
    arguments = ("score", model, tmp_path / data, "-o", scores, "--rejects", aside, *rule)
    first = works(*arguments)
    assert "'size' holds a number outside" in first.stderr
    whole, rejected = scores.read_bytes(), aside.read_bytes()
    assert rejected.count(b"\n") == 7
    scores.write_text("earlier")
    with monkeypatch.context() as patched:
        interrupted(patched, 9, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        assert "No space left on device" in fails(*arguments)
    assert scores.read_text() == "earlier"
    held = tmp_path / ".s.csv.partial"
    with (held / "scores").open("ab") as file:
        file.write(b"what the journal does not vouch for")
    with (held / "rejects").open("ab") as file:
        file.write(b"neither")
    told = works(*arguments)
    assert told.stderr.startswith("going on from row ")
    assert told.stderr.endswith(first.stderr)  # what is said of all rows
    assert (scores.read_bytes(), aside.read_bytes()) == (whole, rejected)
    assert not held.exists()


def test_an_interrupted_run_over_pictures_goes_on_where_it_was(
    images_model, place, tmp_path, small_pieces, monkeypatch
):
    monkeypatch.setattr("anograd.detectors.base.SCORED_AT_ONCE", 4)
    monkeypatch.setattr("anograd.detectors.base.NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr("anograd.stream.run.CELLS", 1)
    arguments = ("score", images_model, place / "good", "-o", tmp_path / "s.csv")
    works(*arguments)
    whole = (tmp_path / "s.csv").read_bytes()
    with monkeypatch.context() as patched:
        interrupted(patched, 2, KeyboardInterrupt())
        assert run(*arguments).exit_code != 0
    assert "going on from row 8 of an interrupted run" in works(*arguments).stderr
    assert (tmp_path / "s.csv").read_bytes() == whole
    assert inside(tmp_path) == ["s.csv"]


@pytest.mark.parametrize("budget", [[], ["--budget", 3]])
def test_damaged_pictures_are_put_aside(images_model, place, tmp_path, small_pieces, budget):
    pictures = shutil.copytree(place / "good", tmp_path / "good")
    works("score", images_model, pictures, "-o", tmp_path / "whole.csv", *budget)
    whole = (tmp_path / "whole.csv").read_text().splitlines()
    (pictures / "line 2" / "00.png").write_bytes((pictures / "line 2" / "02.png").read_bytes()[:60])
    Image.new("L", (9, 8)).save(pictures / "line 2" / "06.png")
    Image.new("RGB", (8, 8)).save(pictures / "line 2" / "38.png")
    arguments = ("score", images_model, pictures, "-o", tmp_path / "s.csv", *budget)
    line = fails(*arguments)
    assert "00.png' could not be read, it is damaged or cut short" in line
    assert "--rejects rejects.csv" in line
    result = works(*arguments, "--rejects", tmp_path / "rejects.csv")
    assert "40 rows, 3 of them rejected" in result.stderr
    bad = ["line 2/00.png", "line 2/06.png", "line 2/38.png"]
    with (tmp_path / "rejects.csv").open(newline="") as file:
        first, second, third = csv.DictReader(file)
    assert [one["line"] for one in (first, second, third)] == bad
    assert "damaged or cut short" in first["reason"]
    assert "shape 1 x 8 x 9, but the detector was fitted on 1 x 8 x 8: resize them" in second["reason"]
    assert "convert them, such as image.convert('L')" in third["reason"]
    found = (tmp_path / "s.csv").read_text().splitlines()
    if not budget:
        assert found == [line for line in whole if line.partition(",")[0] not in bad]
    assert len(found) == 38


def test_pictures_whose_names_are_no_text_are_scored_into_parquet(images_model, place, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path, name in zip(sorted((place / "good").rglob("*.png")), (b"a.png", b"b\xff.png"), strict=False):
        (pictures / os.fsdecode(name)).write_bytes(path.read_bytes())
    works("score", images_model, pictures, "-o", tmp_path / "s.parquet")
    assert pl.read_parquet(tmp_path / "s.parquet")["row"].to_list() == ["a.png", "b\\udcff.png"]


@pytest.mark.parametrize("change", ["input", "model", "options", "journal", "scores"])
def test_a_run_that_is_another_one_starts_anew(model, rows, tmp_path, small_pieces, monkeypatch, change):
    data, own, scores = tmp_path / "x.csv", tmp_path / "model", tmp_path / "s.csv"
    ag.load(model).save(own)
    with monkeypatch.context() as patched:
        interrupted(patched, 9, KeyboardInterrupt())
        assert run("score", own, data, "-o", scores).exit_code != 0
    held = tmp_path / ".s.csv.partial"
    more: tuple[object, ...] = ()
    if change == "input":
        rows.with_columns(pl.col("size") + 1).write_csv(data)
    elif change == "model":
        other = ag.load(model)
        other.calibrate(rows).save(own)
    elif change == "options":
        more = ("--rejects", tmp_path / "r.csv")
    elif change == "journal":
        (held / "journal").write_text("{")
    else:
        (held / "scores").write_bytes(b"")
    told = works("score", own, data, "-o", scores, *more)
    assert "going on" not in told.stderr
    if change in ("input", "model", "options"):
        assert told.stderr.startswith(f"starting anew: the {change}")
    assert not held.exists()
    np.testing.assert_array_equal(
        table(scores)["score"],
        table_scores(own, data, tmp_path / "again.csv"),
    )


def table_scores(model: Path, data: Path, output: Path) -> list[float]:
    works("score", model, data, "-o", output)
    return table(output)["score"]


def test_two_runs_do_not_write_to_one_file(model, rows, tmp_path):
    held = tmp_path / ".s.csv.partial"
    first = partial.Partial(held, {"run": 1})
    try:
        line = fails("score", model, tmp_path / "x.csv", "-o", tmp_path / "s.csv")
        assert "another run writes to '" in line
        assert held.exists()
    finally:
        first.close(keep=False)
    works("score", model, tmp_path / "x.csv", "-o", tmp_path / "s.csv")


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no such folder on this system")
@pytest.mark.parametrize("rule", [("--alpha", 0.2), ("--budget", 9)])
def test_scores_go_into_a_pipe_that_has_no_name(model, rows, tmp_path, rule):
    works("score", model, tmp_path / "x.csv", "-o", tmp_path / "s.csv", *rule)
    out, into = os.pipe()
    with os.fdopen(out, "rb") as read:
        with os.fdopen(into, "wb"):
            works("score", model, tmp_path / "x.csv", "-o", f"/dev/fd/{into}", *rule)
        assert read.read() == (tmp_path / "s.csv").read_bytes()


KILLED = """
import sys
from anograd.stream import partial, pieces
pieces.FEWEST = pieces.CELLS = 64
partial.EVERY = -1.0
own, done = partial.Partial.add, 0
def add(self, *given):
    global done
    own(self, *given)
    done += 1
    print(done, flush=True)
partial.Partial.add = add
from anograd.cli import main
main()
"""


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(model, tmp_path):
    draw = np.random.default_rng(2)
    frame = pl.DataFrame({"size": draw.normal(10, 1, 20_000), "maker": draw.choice(["abel", "beta"], 20_000)})
    frame.write_parquet(tmp_path / "x.parquet", row_group_size=1000)
    data, scores = tmp_path / "x.parquet", tmp_path / "s.parquet"
    works("score", model, data, "-o", tmp_path / "whole.parquet")
    command = [sys.executable, "-c", KILLED, "score", model, data, "-o", scores]
    for pieces_seen in (1, 30, 90):
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= pieces_seen:
                    process.send_signal(signal.SIGKILL)
                    break
        assert process.returncode == -signal.SIGKILL
        assert not scores.exists()
    told = works("score", model, data, "-o", scores)
    assert "going on from row" in told.stderr
    assert pl.read_parquet(scores).equals(pl.read_parquet(tmp_path / "whole.parquet"))
    assert inside(tmp_path) == ["s.parquet", "whole.parquet", "x.parquet"]


cell = st.sampled_from(["1.5", "-2", "", "x", "nan", '"3"', "1e5", " 4", "5 ", "+6", " ", '""'])
word = st.sampled_from(["abel", '"b,b"', '"c\nd"', "", 'e"', '"', '"g""g"', "true"])
line = st.one_of(st.tuples(cell, word), st.tuples(cell), st.tuples(cell, word, cell))


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(line, min_size=1, max_size=30), block=st.integers(1, 200))
def test_csv_is_cut_into_rows_wherever_the_blocks_end(fitted_table, lines, block):
    text = "".join(",".join(line) + "\n" for line in lines).encode()
    whole = read(fitted_table, text, 10**6)
    assert read(fitted_table, text, block) == whole


@pytest.fixture(scope="module")
def fitted_table(model):
    return ag.load(model).encoder_.table


def read(table_, text: bytes, block: int):
    """Return what is read of a CSV text: rows, why others are not, and how many there are."""
    own = delimited.BLOCK, delimited.CELL
    delimited.BLOCK, delimited.CELL = block, 1
    try:
        source = Delimited("x", io.BytesIO(b"size,maker\n" + text), table_, lambda names: [])
        found = list(source.pieces(Place()))
    finally:
        delimited.BLOCK, delimited.CELL = own
    rows = [row for piece in found for row in piece.X.rows()]
    why = {piece.first + row: reason for piece in found for row, reason in piece.unread.items()}
    raw = {piece.first + row: piece.line(row) for piece in found for row in range(piece.count)}
    return repr(rows), sum(piece.count for piece in found), why, raw


def drifted(place, tmp_path):
    """Return a file whose makers are spelt in another way in half of its 60 rows."""
    frame = pl.read_csv(place / "x.csv").drop("class")
    other = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.col("maker").str.to_uppercase())
    frame.with_columns(other.otherwise("maker").alias("maker")).write_csv(tmp_path / "new.csv")
    return tmp_path / "new.csv"


@pytest.mark.parametrize("output", ["s.csv", "-"])
@pytest.mark.parametrize("rule", [[], ["--budget", 3]])
@pytest.mark.usefixtures("small_pieces")
def test_rows_unlike_those_of_the_fit_are_warned_of(model, place, tmp_path, output, rule, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = works("score", model, drifted(place, tmp_path), "-o", output, *rule)
    assert "warning: the rows are unlike those that the model was fitted to" in done.stderr
    assert "'maker' holds a level that the model has not seen, or none, in 50% of the rows" in done.stderr
    assert "'size'" not in done.stderr
    assert "unlike" not in works("score", model, place / "x.csv", "--label", "class", "-o", output).stderr


def test_programs_are_told_of_unlike_rows_among_the_warnings(model, place, tmp_path):
    done = works("score", model, drifted(place, tmp_path), "-o", tmp_path / "s.csv", "--json")
    warned = json.loads(done.stdout)["warnings"]
    assert "'maker' holds a level that the model has not seen" in warned[-1]
