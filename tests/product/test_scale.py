"""Parts scored by Ray, Dask and Spark have the scores of one process, whatever is killed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal
from pyarrow import parquet
from tests.product.conftest import ENVIRONMENT, ROOT, fails, misused

import anograd as ag
from anograd.scale import Scorer, on_ray, score_on_ray
from anograd.scale.parts import find_parts, score_part

PAGE = ROOT.parent / "docs" / "guide" / "machines.md"
PARTS, ROWS = 5, 6_000
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
# What the engines themselves use of pandas and Python is theirs to keep up with.
of_the_engine = pytest.mark.filterwarnings("ignore")


def block(word: str) -> str:
    """Return the code on the page about many machines that has a word in it."""
    codes = re.findall(r"^```py\n(.*?)^```\n", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return next(code for code in codes if word in code)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and parts in a folder and a folder below; the last part has no rows."""
    folder = tmp_path_factory.mktemp("scale")
    draw = np.random.default_rng(0)
    frame = pl.DataFrame(draw.normal(size=(PARTS * ROWS, 4)), schema=list("abcd"))
    ag.GradCon(epochs=2, random_state=0).fit(frame[:1000]).save(folder / "model")
    frame = frame.with_columns(id=pl.int_range(pl.len()), maker=pl.lit("abel"))
    (folder / "parts" / "later").mkdir(parents=True)
    for i in range(PARTS):
        below = folder / "parts" / ("later" if i > 2 else "")
        frame[i * ROWS : (i + 1) * ROWS].write_parquet(below / f"{i}.parquet")
    frame[:0].write_parquet(folder / "parts" / "later" / "none.parquet")
    return folder


@pytest.fixture(scope="module")
def scorer(place: Path) -> Scorer:
    return Scorer(str(place / "model"), columns=("id",))


@pytest.fixture(scope="module")
def wanted(place: Path, scorer: Scorer) -> pl.DataFrame:
    """What one process finds."""
    return scorer(read(place / "parts"))


def read(folder: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(path) for path in sorted(folder.rglob("[0-9]*.parquet"))).sort("id")


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


# The batch function


def test_every_library_gets_a_table_of_its_own(scorer: Scorer, place: Path, wanted: pl.DataFrame) -> None:
    frame = pl.read_parquet(place / "parts" / "1.parquet")
    found = scorer(frame.to_arrow())
    assert isinstance(found, pa.Table)
    assert_frame_equal(pl.from_arrow(found), wanted[ROWS : 2 * ROWS])
    pandas = frame.to_pandas().set_index("id", drop=False)
    assert list(scorer(pandas).index) == list(pandas.index)
    assert_frame_equal(pl.from_pandas(scorer(pandas)), wanted[ROWS : 2 * ROWS])


def test_batches_of_spark(scorer: Scorer, place: Path, wanted: pl.DataFrame) -> None:
    batches = parquet.read_table(place / "parts" / "0.parquet").to_batches(max_chunksize=1000)
    found = pa.Table.from_batches(list(scorer.batches(batches)))
    assert_frame_equal(pl.from_arrow(found), wanted[:ROWS])


def test_threads_take_turns(scorer: Scorer, place: Path, wanted: pl.DataFrame) -> None:
    frame, found = pl.read_parquet(place / "parts" / "0.parquet"), {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: scorer(frame)})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert_frame_equal(found[i], wanted[:ROWS])


def test_another_model_in_the_folder_is_loaded(place: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(place / "parts" / "0.parquet")
    shutil.copytree(place / "model", tmp_path / "model")
    score = Scorer(str(tmp_path / "model"))
    first = score(frame)
    ag.GradCon(epochs=1, random_state=1).fit(frame.select("a", "b", "c", "d")[:500]).save(tmp_path / "model")
    assert not first.equals(score(frame))


def test_a_column_that_is_not_there(place: Path) -> None:
    with pytest.raises(ValueError, match="no column 'number' to take over, it has a, b, c, d, id, maker"):
        Scorer(str(place / "model"), columns=("number",))(pl.read_parquet(place / "parts" / "0.parquet"))


# Refused before any work, so that no cluster is started


@pytest.mark.parametrize("columns", [("score",), ("id", "anomaly"), ("id", "id")])
def test_a_column_is_not_written_twice(place: Path, tmp_path: Path, columns: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"'{columns[-1]}' is to be taken over, and would stand twice"):
        Scorer(str(place / "model"), columns=columns)
    keep = [word for name in columns for word in ("--keep", name)]
    line = fails("score", place / "model", place / "parts", "-o", tmp_path / "s", "--engine", "ray", *keep)
    assert "would stand twice" in line
    assert not (tmp_path / "s").exists()


def test_a_bad_row_is_named_by_its_place_in_the_part(scorer: Scorer, place: Path, tmp_path: Path) -> None:
    rows = pl.DataFrame(np.random.default_rng(1).normal(size=(20_000, 4)), schema=list("abcd"))
    bad = rows.with_row_index("id").with_columns(a=pl.when(pl.col("id") != 18_000).then("a"))
    (tmp_path / "parts").mkdir()
    bad.write_parquet(tmp_path / "parts" / "0.parquet")
    (part,) = find_parts(tmp_path / "parts", tmp_path / "out")
    said = r"in rows 16,384 to 19,999, counted from 16,384: .* row 1616, column 0 \('a'\)"
    with pytest.raises(ValueError, match=said):
        score_part(scorer, part)
    assert not Path(part.output).exists()


def test_rules_that_need_all_rows_are_refused(place: Path, tmp_path: Path) -> None:
    line = ("score", place / "model", place / "parts", "-o", tmp_path / "out")
    said = misused(*line, "--engine", "ray", "--fdr", 0.1)
    assert "judges each row by itself, by --alpha" in said
    assert "detect(scores, fdr=0.1)" in said
    assert "go with --engine ray" in misused(*line, "--workers", 2)


def test_rejects_are_refused_rather_than_ignored(place: Path, tmp_path: Path) -> None:
    words = ("score", place / "model", place / "parts", "-o", tmp_path / "out", "--engine", "ray")
    assert "no --rejects" in misused(*words, "--rejects", "r.csv")


@needs_ray
def test_bad_folders_are_refused(place: Path, tmp_path: Path) -> None:
    def refused(parts: object, output: object) -> str:
        return fails("score", place / "model", parts, "-o", output, "--engine", "ray")

    assert "there is no Parquet file in" in refused(tmp_path, tmp_path / "out")
    assert "within the input" in refused(place / "parts", place / "parts" / "out")
    shutil.copytree(place / "parts", tmp_path / "out")
    (tmp_path / "out" / "0.parquet").rename(tmp_path / "out" / "of another run.parquet")
    assert "of another run.parquet" in refused(place / "parts", tmp_path / "out")


def test_without_ray_the_extra_is_named(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = fails("score", place / "model", place / "parts", "-o", tmp_path / "out", "--engine", "ray")
    assert "pip install 'anograd[ray]'" in said


# Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster on this machine, of three processors on paper."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local", num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20
    )
    yield
    ray.shutdown()


def mapped(place: Path, output: Path, workers: int, **more: Any) -> pl.DataFrame:
    done = score_on_ray(place / "model", place / "parts", output, columns=["id"], workers=workers, **more)
    assert sum(part.rows for part in done) == PARTS * ROWS
    for part in (place / "parts").rglob("*.parquet"):
        scored = output / part.relative_to(place / "parts")
        assert pl.read_parquet(scored)["id"].equals(pl.read_parquet(part)["id"])  # every row, once, in order
    assert hidden(output) == []
    return read(output)


@pytest.mark.slow
@needs_ray
@of_the_engine
def test_a_killed_worker_loses_no_row_and_doubles_none(
    cluster: None, place: Path, tmp_path: Path, wanted: pl.DataFrame
) -> None:
    """One of two processes is killed while it is writing a part."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.001):
            for path in (path for path in hidden(tmp_path) if not path.name.endswith(".begun")):
                for process in psutil.Process().children(recursive=True):
                    with suppress(psutil.Error):
                        if any(file.path == str(path) for file in process.open_files()):
                            process.send_signal(signal.SIGKILL)
                            killed.append(process.pid)
                            return

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        found = mapped(place, tmp_path / "out", 2)
    finally:
        over.set()
        thread.join()
    assert killed
    assert_frame_equal(found, wanted, check_exact=True)


def test_a_part_that_kills_its_process_again_and_again_is_given_up(scorer: Scorer, tmp_path: Path) -> None:
    part = {"name": ["0.parquet"], "source": ["nothing"], "output": [str(tmp_path / "0.parquet")]}
    with warnings.catch_warnings():
        actor = on_ray._Actor(scorer)  # each call is an attempt, as if the one before had been killed
        said = [actor(part)["error"][0] for _ in range(4)]
    assert ["its process died 3 times" in one for one in said] == [False, False, False, True]


@pytest.mark.slow
@needs_ray
@of_the_engine
def test_one_worker_keeps_whole_parts_and_names_bad_ones(
    cluster: None, place: Path, tmp_path: Path, wanted: pl.DataFrame
) -> None:
    shutil.copytree(place / "parts", tmp_path / "parts")
    shutil.copytree(place / "model", tmp_path / "model")
    bad = tmp_path / "parts" / "1.parquet"
    sound = bad.read_bytes()
    bad.write_bytes(sound[:-100])
    with pytest.raises(ValueError, match=r"1 of 6 parts were not scored, .*: 1\.parquet: it could not be"):
        mapped(tmp_path, tmp_path / "out", 1)
    bad.write_bytes(sound)
    events: list[dict[str, Any]] = []
    found = mapped(tmp_path, tmp_path / "out", 1, observe=lambda name, data: events.append(dict(data)))
    assert [(event["part"], event["kept"]) for event in events] == [(5, True), (6, False)]
    assert_frame_equal(found, wanted, check_exact=True)
    again = score_on_ray(tmp_path / "model", tmp_path / "parts", tmp_path / "out", columns=["id"])
    assert all(part.kept for part in again)


@pytest.mark.slow
@needs_ray
def test_rows_unlike_those_of_the_fit_are_told_of_over_all_parts(
    cluster: None, place: Path, tmp_path: Path
) -> None:
    """Of two parts one is in another unit, a third of all rows; with the first one kept from before."""
    rows = pl.DataFrame(np.random.default_rng(1).uniform(-1, 1, size=(300, 4)), schema=list("abcd"))
    (tmp_path / "parts").mkdir()
    rows[:200].write_parquet(tmp_path / "parts" / "0.parquet")
    (usual,) = score_on_ray(place / "model", tmp_path / "parts", tmp_path / "out", workers=1)
    assert usual.counts == (200, 0, 0, 0, 0)
    rows[200:].with_columns(c=pl.col("c") + 1000).write_parquet(tmp_path / "parts" / "1.parquet")
    with pytest.warns(UserWarning, match=r"unlike those .*: 'c' holds a number outside .*, in 33% of the"):
        kept, made = score_on_ray(place / "model", tmp_path / "parts", tmp_path / "out", workers=1)
    assert kept.kept
    assert kept.counts == usual.counts
    assert made.counts == (100, 0, 0, 100, 0)


@pytest.mark.slow
@needs_ray
@of_the_engine
def test_the_page_on_ray(cluster: None, place: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(place / "model", tmp_path / "model")
    shutil.copytree(place / "parts", tmp_path / "parts")
    with chdir(tmp_path):
        exec(block("score_on_ray"), {})
        assert capsys.readouterr().out == f"{PARTS * ROWS}\n"
        shutil.rmtree("scores")
        exec(block("import ray"), {"score": Scorer(str(tmp_path / "model"), columns=("id",))})
        assert pl.read_parquet("scores/*.parquet")["id"].sort().equals(read(place / "parts")["id"])


@pytest.mark.slow
@needs_ray
def test_ctrl_c_stops_a_run_that_goes_on(place: Path, tmp_path: Path, wanted: pl.DataFrame) -> None:
    """As in a terminal: the signal goes to all processes of the group."""
    command = [sys.executable, "-m", "anograd", "score", place / "model", place / "parts", "-o",
               tmp_path / "out", "--engine", "ray", "--workers", "1", "--keep", "id"]  # fmt: skip
    process = subprocess.Popen(
        list(map(str, command)), env=ENVIRONMENT, text=True, stderr=subprocess.PIPE, start_new_session=True
    )
    until = time.monotonic() + 300
    while not list((tmp_path / "out").rglob("[0-9]*.parquet")) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode in (0, 130), said  # it may have been done already
    assert "Traceback" not in said
    assert "the same command goes on from there" in said or "rows in 6 parts" in said
    assert hidden(tmp_path / "out") == []
    for path in (tmp_path / "out").rglob("[0-9]*.parquet"):
        part = pl.read_parquet(path)
        assert_frame_equal(part, wanted.filter(pl.col("id").is_in(part["id"].implode())))


# Dask and Spark


@pytest.mark.slow
@of_the_engine
def test_the_page_on_dask(place: Path, tmp_path: Path, scorer: Scorer, wanted: pl.DataFrame) -> None:
    distributed = pytest.importorskip("distributed")
    shutil.copytree(place / "parts", tmp_path / "parts")
    with (
        chdir(tmp_path),
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        exec(block("dask"), {"score": scorer})
    found = pl.read_parquet(tmp_path / "scores" / "*.parquet").select(wanted.columns).sort("id")
    assert_frame_equal(found, wanted, check_exact=True)


@pytest.mark.slow
@of_the_engine
def test_the_page_on_spark(place: Path, tmp_path: Path, scorer: Scorer, wanted: pl.DataFrame) -> None:
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java")
    shutil.copytree(place / "parts", tmp_path / "parts", ignore=shutil.ignore_patterns("later"))
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    with chdir(tmp_path):  # which is then where Spark looks for folders
        spark = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
        try:
            exec(block("pyspark"), {"score": scorer})
        finally:
            spark.stop()
    found = pl.read_parquet(tmp_path / "scores" / "*.parquet").sort("id")
    assert_frame_equal(found, wanted[: 3 * ROWS], check_exact=True)
