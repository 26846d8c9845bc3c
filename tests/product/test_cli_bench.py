"""``anograd bench`` as a user types it: a run, its tables, the data sets, and what it says of mistakes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anograd.bench import plan as plans
from anograd.bench import results
from anograd.cli import app

ROOT = Path(__file__).resolve().parents[2]
ENTRANTS = ROOT / "tests" / "unit"
RUN = """
entrants = "bench_entrants"
seeds = [0, 1]
[[run]]
protocol = "adbench"
data = ["wine", "breast_cancer"]
detectors = {detectors}
options = {{ labelled = [0.0, 0.3], clean = true }}
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ENTRANTS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ENTRANTS), *sys.path]))


def call(*words):
    return CliRunner().invoke(app, ["bench", *map(str, words)])


def write(folder, detectors='["middle", "counts"]'):
    path = folder / "mine.toml"
    path.write_text(RUN.format(detectors=detectors))
    return path


def test_a_run_and_its_table(tmp_path):
    path = write(tmp_path)
    done = call(path, "-p", 2)
    assert done.exit_code == 0, done.output
    assert "12 cells, 0 of them measured before" in done.output
    assert "left out: counts learns from known anomalies, and adbench" in done.output
    assert "12 cells measured, 0 failed" in done.output
    again = call("run", path)
    assert "12 cells, 12 of them measured before" in again.output
    shown = call("table", tmp_path / "mine.jsonl", "--measure", "average_precision")
    assert shown.exit_code == 0
    assert "| middle |" in shown.output
    assert shown.output.count("| detector |") == 2  # two regimes never stand in one table


def test_failures_are_told_and_give_their_own_exit_code(tmp_path):
    path = write(tmp_path, '["middle", "raises"]')
    done = call(path)
    assert done.exit_code == 3
    assert "failed: RuntimeError: the solver did not converge" in done.output
    assert "8 cells measured, 8 failed" in done.output
    assert "did not converge" in call("table", tmp_path / "mine.jsonl").output


def test_a_dry_run_measures_nothing(tmp_path):
    path = write(tmp_path)
    assert "12 cells" in call(path, "--dry-run").output
    assert not (tmp_path / "mine.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no.toml"], "there is no run file 'no.toml'"),
        (["table", "no.jsonl"], "there is no results file 'no.jsonl'"),
        (["table"], "either files of results or --pages is wanted"),
    ],
)
def test_what_is_not_there_is_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call(*words)
    assert done.exit_code != 0
    assert message in " ".join(re.sub(r"[│\n]", " ", done.output).split())
    assert "Traceback" not in done.output


def test_data_sets_are_listed_with_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("ANOGRAD_DATA", str(tmp_path))
    from anograd.bench import sets

    sets.registry.cache_clear()
    shown = call("data").output
    sets.registry.cache_clear()
    assert re.search(r"^digits +here$", shown, flags=re.MULTILINE)
    assert re.search(r"^mnist +'mnist.npz' is not in ", shown, flags=re.MULTILINE)
    assert re.search(r"^openml/mnist +not fetched yet", shown, flags=re.MULTILINE)


def test_a_set_that_is_not_here_is_told_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("ANOGRAD_DATA", str(tmp_path))
    path = tmp_path / "mine.toml"
    path.write_text('[[run]]\nprotocol = "one-class"\ndata = ["digits", "mnist"]\ndetectors = "pca"\n')
    done = call(path)
    assert done.exit_code == 1
    assert "'mnist' is not here: 'mnist.npz' is not in" in done.output
    assert not (tmp_path / "mine.jsonl").exists()


def test_pages_are_filled_and_checked(tmp_path):
    call(write(tmp_path))
    (tmp_path / "page.md").write_text("# Mine\n\n<!-- ranks:begin -->\n<!-- ranks:end -->\n")
    pages = tmp_path / "pages.toml"
    pages.write_text(
        'root = "."\nfolder = "."\n[[page]]\npath = "page.md"\n[[page.table]]\nname = "ranks"\n'
        'kind = "table"\nresults = ["mine.jsonl"]\n'
    )
    assert call("table", "--pages", pages, "--check").exit_code == 1
    assert call("table", "--pages", pages).exit_code == 0
    assert "| middle |" in (tmp_path / "page.md").read_text()
    assert call("table", "--pages", pages, "--check").exit_code == 0


def test_ctrl_c_keeps_what_was_measured_and_leaves_no_process(tmp_path):
    path = write(tmp_path, '["slow"]')
    process = subprocess.Popen(
        [sys.executable, "-m", "anograd", "bench", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 300
    while not results.read(tmp_path / "mine.jsonl") and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, told = process.communicate(timeout=60)
    kept = len(results.read(tmp_path / "mine.jsonl"))
    assert process.returncode == 130
    assert f"stopped: {kept} of 8 cells are kept; the same command goes on" in told
    assert "Traceback" not in told
    assert _gone(process.pid)


def _gone(group):
    """Tell whether all processes of a group have ended, or do so within seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_the_quick_run_reproduces_the_committed_table(tmp_path):
    """One seed of it: every AUROC is the committed one, but for what a processor rounds otherwise."""
    plan = (ROOT / "benchmarks" / "quick.toml").read_text()
    path = tmp_path / "quick.toml"
    path.write_text(plan.replace("seeds = [0, 1, 2]", "seeds = [0]"))
    assert call(path, "-p", 2).exit_code == 0
    committed = _aurocs(ROOT / "benchmarks" / "results" / "quick.jsonl")
    measured = _aurocs(tmp_path / "results" / "quick.jsonl")
    assert measured.keys() == {key for key in committed if key[-1] == 0}
    for key, found in measured.items():
        assert abs(found - committed[key]) <= 0.01, key


def _aurocs(path):
    return {
        (line["data"], str(line["options"]), line["detector"], line["seed"]): line["scores"]["score"]["auroc"]
        for line in results.read(path)
    }


def test_the_run_files_of_the_project_are_plans():
    for path in (ROOT / "benchmarks").glob("*.toml"):
        if "run" in tomllib.loads(path.read_text()) and path.stem == "quick":
            plan = plans.read(path)
            assert len(plan.cells) == 120
            assert not plan.unsuited


def test_the_run_file_in_the_docs_is_a_plan(tmp_path, data, monkeypatch):
    monkeypatch.setenv("ANOGRAD_DATA", str(data))
    from anograd.bench import sets

    sets.registry.cache_clear()
    text = (ROOT / "docs" / "bench.md").read_text()
    path = tmp_path / "docs.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", text, flags=re.DOTALL)[1])
    plan = plans.read(path)
    sets.registry.cache_clear()
    raw = next(cell for cell in plan.cells if cell.detector == "r2ad2-raw")
    assert raw.settings == {"sketch": "auto", "columns": False}
    assert {cell.options.get("inlier") for cell in plan.cells} == {None, *range(10)}
