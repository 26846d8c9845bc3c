"""A benchmark run: what is asked for is measured once, whatever crashes, hangs or is stopped meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from anograd.bench import plan as plans
from anograd.bench import results, workers
from anograd.bench.roster import roster
from anograd.bench.run import run

HERE = Path(__file__).parent
COSTS = ("fit_seconds", "cpu_seconds", "score_seconds", "peak_mib")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(HERE), *sys.path])
    )  # for processes that are started


def write(folder: Path, detectors: list[str], more: str = "", protocol: str = "adbench") -> Path:
    path = folder / "run.toml"
    path.write_text(
        f"""
        entrants = "bench_entrants"
        seeds = [0, 1]
        {more}
        [[run]]
        protocol = "{protocol}"
        data = "wine"
        detectors = {json.dumps(detectors)}
        """
    )
    return path


def without_costs(lines):
    return [{word: value for word, value in line.items() if word not in COSTS} for line in lines]


def test_every_cell_is_measured_once_and_in_the_plans_order(tmp_path):
    plan = plans.read(write(tmp_path, ["middle", "drawn"]))
    lines = run(plan, processes=2)
    assert [(line["detector"], line["seed"]) for line in lines] == [
        ("middle", 0), ("drawn", 0), ("middle", 1), ("drawn", 1),
    ]  # fmt: skip
    assert results.read(plan.results) == lines
    assert all(line["regime"] == "contaminated" and line["test_rows"] == 300 for line in lines)
    assert lines[1]["weights"] == 7
    assert lines[0]["fit_seconds"] >= 0
    assert lines[0]["commit"] != ""
    told = []
    assert run(plan, observe=told.append) == lines
    assert told == []  # nothing was measured anew


def test_a_rival_that_fails_dies_or_hangs_costs_its_own_cell_only(tmp_path):
    names = ["raises", "dies", "signals", "nan", "slow", "forks", "empty", "forgets", "wide", "middle"]
    names += ["twinned", "overwrites"]
    plan = plans.read(write(tmp_path, names, "seconds = 2"))
    slow = [cell for cell in plan.cells if cell.detector == "slow"]
    for cell in slow:
        object.__setattr__(cell, "settings", {"seconds": 60})
    lines = {(line["detector"], line["seed"]): line for line in run(plan, processes=2)}
    assert lines["raises", 0]["failed"] == "RuntimeError: the solver did not converge"
    assert lines["dies", 1]["failed"] == "its process ended: signal SIGKILL"
    assert lines["nan", 0]["failed"].startswith("ValueError: 300 of 300 scores are no finite numbers")
    assert lines["slow", 0]["failed"] == "ended after 2 s"
    assert lines["signals", 0]["failed"].startswith("its process ended: signal ")
    assert lines["forks", 0]["scores"] == lines["middle", 0]["scores"]
    assert lines["empty", 0]["failed"].startswith("ValueError: no 'score' was given")
    assert lines["twinned", 0]["failed"].startswith("ValueError: no 'score' was given")
    assert lines["overwrites", 0]["scores"]["twin"] == lines["middle", 0]["scores"]["score"]
    assert lines["forgets", 0]["failed"].startswith("ValueError: a NoneType was given; wanted is Fitted(")
    assert lines["wide", 0]["weights"] == 9
    assert lines["middle", 0]["scores"]["score"]["auroc"] > 0
    assert len(lines) == 24
    assert [json.loads(one) for one in plan.results.read_text().splitlines()] == list(lines.values())


def test_what_draws_without_its_seed_draws_by_it_all_the_same(tmp_path):
    found = []
    for processes in (1, 2):
        plan = plans.read(write(tmp_path, ["leaks"]))
        found.append([line["scores"] for line in run(plan, processes=processes)])
        plan.results.unlink()
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]


def test_a_process_that_cannot_begin_is_an_error_and_no_result(tmp_path, monkeypatch, capfd):
    (tmp_path / "only_here.py").write_text(
        "import multiprocessing\nassert multiprocessing.parent_process() is None\n"
        "from bench_entrants import ENTRANTS\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, ["middle"])
    path.write_text(path.read_text().replace("bench_entrants", "only_here"))
    plan = plans.read(path)
    with pytest.raises(ValueError, match=r"entrants = 'only_here': .* is wanted; AssertionError"):
        run(plan)
    assert results.read(plan.results) == []


def gone(note: Path) -> bool:
    """Wait until the processes that an entrant has noted are no more."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        left = [int(one) for one in note.read_text().split() if psutil.pid_exists(int(one))]
        if all(psutil.Process(one).status() == psutil.STATUS_ZOMBIE for one in left):
            return True
        time.sleep(0.05)
    return False


def test_a_detector_may_start_processes_and_write_where_it_likes(tmp_path):
    command = [sys.executable, "-m", "anograd", "bench", "run", write(tmp_path, ["shares"]), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["failed"] == 0
    assert done.stderr.count("from a library") == 2


def test_what_a_detector_has_started_ends_with_its_cell(tmp_path):
    note = tmp_path / "note"
    path = write(tmp_path, ["starts"], f"seconds = 1\n[detectors.starts]\nnote = '{note}'")
    assert {line["failed"] for line in run(plans.read(path))} == {"ended after 1 s"}
    assert gone(note)


def test_processes_end_with_the_run_however_it_ends(tmp_path):
    note = tmp_path / "note"
    path = write(tmp_path, ["starts"], f"[detectors.starts]\nnote = '{note}'")
    command = [sys.executable, "-m", "anograd", "bench", str(path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 300
        while not (note.exists() and note.read_text().endswith("\n")) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert gone(note)


def test_processes_have_the_environment_of_now(tmp_path, monkeypatch):
    for word in ("one", "another"):
        monkeypatch.setenv("TOLD", word)
        plan = plans.read(write(tmp_path, ["tells"]))
        assert {line["failed"] for line in run(plan, again=True)} == {f"RuntimeError: {word}"}


def test_threads_that_wait_sleep(monkeypatch):
    """OpenMP reads how they wait as it is loaded, so that it must be said before a process begins."""
    seen = []

    class Context:
        Pipe = staticmethod(lambda: (None, open(os.devnull)))  # noqa: SIM115
        Process = staticmethod(lambda **_: SimpleNamespace(start=lambda: seen.append(dict(os.environ))))

    for given in (None, "ACTIVE"):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if given:
            monkeypatch.setenv("OMP_WAIT_POLICY", given)
        workers._start(Context, 1, None)
        assert os.environ.get("OMP_WAIT_POLICY") == given
    assert [one["OMP_WAIT_POLICY"] for one in seen] == ["PASSIVE", "ACTIVE"]


def test_cells_that_failed_are_tried_again_only_where_asked(tmp_path):
    plan = plans.read(write(tmp_path, ["raises", "middle"]))
    run(plan)
    told = []
    run(plan, observe=told.append)
    assert told == []
    run(plan, again=True, observe=told.append)
    assert [progress.line["detector"] for progress in told] == ["raises", "raises"]
    assert told[-1].failed == 2


def test_killed_twice_and_resumed_the_same_file_results(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        path = write(folder, ["drawn", "slow", "middle"], "seeds = [0, 1, 2, 3, 4]".replace("seeds", "#"))
    expected = run(plans.read(whole / "run.toml"))
    command = [sys.executable, "-m", "anograd", "bench", str(path), "-p", "2"]
    stops = 0
    for wanted in (1, 3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 300
        while len(results.read(cut / "run.jsonl")) < wanted and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = len(results.read(cut / "run.jsonl"))
        stops += wanted <= there < len(expected)
    assert stops == 2, "it was to be stopped in the middle"
    with (cut / "run.jsonl").open("a") as file:
        file.write('{"data": "wine", "protoc')  # as a kill in the middle of a line leaves it
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "6 cells measured, 0 failed" in done.stdout
    assert without_costs(results.read(cut / "run.jsonl")) == without_costs(expected)


def test_two_runs_on_one_results_file_are_refused(tmp_path):
    path = write(tmp_path, ["middle"])
    plan = plans.read(path)
    with results.held(plan.results), pytest.raises(ValueError, match="another run is writing to"):
        run(plan)
    assert len(run(plan)) == 2  # what was held is free again


def test_remaining_time_goes_by_what_the_same_detector_took(tmp_path):
    plan = plans.read(write(tmp_path, ["middle", "slow"]))
    told = []
    run(plan, observe=told.append)
    first, second, third, last = told
    assert first.untimed == 2  # nothing is known of "slow" yet
    assert 0.25 < third.left < 2
    assert last.left == 0
    assert (second.done, last.done, last.cells) == (2, 4, 4)


def test_remaining_time_goes_by_the_same_settings(tmp_path):
    quick, both = "[detectors.slow]\nsweep = {{ seconds = {} }}".format, [0.01, 0.62]
    run(plans.read(write(tmp_path, ["slow"], quick([0.01]))))
    told = []
    run(plans.read(write(tmp_path, ["slow"], quick(both))), observe=told.append)
    assert [one.line["settings"]["seconds"] for one in told] == [0.62, 0.62]
    assert told[0].left > 0.6  # the two quick cells would say 0.2


def test_known_anomalies_are_left_out_where_they_are_ignored(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        """
        entrants = "bench_entrants"
        seeds = [0]
        [[run]]
        protocol = "adbench"
        data = "breast_cancer"
        options = { labelled = 0.5, clean = true }
        detectors = ["counts", "middle"]
        """
    )
    counts, middle = run(plans.read(path))
    assert counts["known"] > 0
    assert middle["known"] == 0
    assert counts["trained_on"] == middle["trained_on"] + counts["known"]


RUN = '[[run]]\nprotocol = "adbench"\ndata = "wine"\ndetectors = "middle"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[run]\n", "is no TOML"),
        ("seeds = [0]\n", r"no \[\[run\]\] is there"),
        ("sedes = [0]\n", "no word at the top 'sedes'; did you mean 'seeds'"),
        (RUN.replace("detectors", "seeds"), "detectors is not said"),
        (RUN.replace("adbench", "adbanch"), "did you mean 'adbench'"),
        (RUN.replace("wine", "vine"), "no data set 'vine'; did you mean 'wine'"),
        (RUN.replace("middle", "midle"), "did you mean 'middle'"),
        (RUN + "options = {labeled = 0.1}\n", "no option 'labeled'; did you mean 'labelled'"),
        (RUN + "options = {labelled = 5.0}\n", "a share from 0 to 1 is wanted"),
        (RUN.replace("adbench", "one-class"), "'wine' is a table"),
        (RUN.replace("adbench", "r2ad2") + "options = {transfer = true}\n", "one kind of anomalies"),
        (RUN + "seeds = 3\n", "seeds = 3: whole numbers"),
        (RUN + "seeds = [1, true]\n", "whole numbers of 0 or more are wanted"),
        (RUN + "seeds = [-1]\n", "whole numbers of 0 or more are wanted"),
        (RUN + "seeds = []\n", "nothing is asked for"),
        ("seconds = nan\n" + RUN, "seconds = nan: a number above 0 is wanted"),
        ("seconds = true\n" + RUN, "seconds = True: a number above 0 is wanted"),
        ("seconds = -5\n" + RUN, "seconds = -5: a number above 0 is wanted"),
        ('[detectors.mine]\ndetector = "midle"\n' + RUN, r"\[detectors.mine\]: there is no detector 'midle'"),
    ],
)
def test_a_run_file_is_refused_with_the_nearest_names(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text('entrants = "bench_entrants"\n' + text)
    with pytest.raises(ValueError, match=message):
        plans.read(path)


def test_a_module_of_entrants_that_cannot_be_had_is_named(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'entrants = "no_such_module"\n[[run]]\nprotocol = "adbench"\ndata = "wine"\ndetectors = "knn"\n'
    )
    with pytest.raises(ValueError, match="'no_such_module': a module that can be imported and has ENTRANTS"):
        plans.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit()\n", "'own_entrants': .* is wanted; SystemExit"),
        (
            "from bench_entrants import ENTRANTS\nENTRANTS = {'knn': ENTRANTS['middle']}\n",
            "ENTRANTS has 'knn', which is taken",
        ),
    ],
)
def test_a_module_of_entrants_that_ends_or_takes_names_is_refused(tmp_path, monkeypatch, text, message):
    (tmp_path / "own_entrants.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_entrants", raising=False)
    roster.cache_clear()
    path = write(tmp_path, ["middle"])
    path.write_text(path.read_text().replace("bench_entrants", "own_entrants"))
    with pytest.raises(ValueError, match=message):
        plans.read(path)
    roster.cache_clear()


def test_no_run_file_is_an_error_that_shows_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\[\[run\]\] protocol"):
        plans.read(tmp_path / "none.toml")


def test_options_that_are_lists_and_classes_are_crossed_and_settings_are_named(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        """
        entrants = "bench_entrants"
        seeds = [3]
        results = "results/own.jsonl"
        [detectors.cubic]
        detector = "middle"
        power = 3
        [detectors.several]
        detector = "middle"
        sweep = { power = [1, 2] }
        [[run]]
        protocol = "adbench"
        data = "wine"
        detectors = "several"
        [[run]]
        protocol = "one-class"
        data = "digits"
        options = { outliers = ["all", 0.3] }
        detectors = ["cubic", "pictures"]
        [[run]]
        protocol = "r2ad2"
        data = ["wine", "digits"]
        detectors = ["pictures", "counts"]
        options = { known = [0, 5] }
        """
    )
    plan = plans.read(path)
    assert plan.results == tmp_path / "results" / "own.jsonl"
    images = [cell for cell in plan.cells if cell.protocol == "one-class"]
    assert len(images) == 2 * 10 * 2
    assert {cell.options["inlier"] for cell in images} == set(range(10))
    cubic = images[0].line()
    assert (cubic["detector"], cubic["settings"]) == ("cubic", {"detector": "middle", "power": 3})
    several = [cell.line() for cell in plan.cells if cell.protocol == "adbench"]
    assert [line["settings"]["power"] for line in several] == [1, 2]
    assert {line["detector"] for line in several} == {"several"}
    tables = [cell for cell in plan.cells if cell.protocol == "r2ad2"]
    assert {(cell.data, cell.detector, cell.options["known"]) for cell in tables} == {
        ("wine", "counts", 5), ("digits", "counts", 5), ("digits", "pictures", 0), ("digits", "pictures", 5),
    }  # fmt: skip
    assert any("pictures takes images, and wine is a table" in why for why in plan.unsuited)
    assert any("counts learns from known anomalies" in why for why in plan.unsuited)
