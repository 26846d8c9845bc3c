"""Processes killed at random moments of fit, save, score and export: what is lost, damaged, or stuck.

``python benchmarks/kills.py`` kills 100 of them; ``--kills 8 --seed 1 --only fit,save`` fewer, unrecorded.

A task is run once unbroken, then again and again: it is killed (SIGKILL) at a moment drawn from its length,
what lies under the final name is looked at, and it is started anew, up to three times before it may end.
Half of the tasks begin with an earlier result under the final name. After each kill that name is absent
(never where there was an earlier result), or the earlier result, or the new one; in the end it is the result
of the unbroken run, and nothing lies beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not outlive a fork

import numpy as np
import torch

import anograd as ag
from anograd import cli, store, whole

KILLS, IN_A_ROW = 100, 3
Sum = str | None


def sum_of_model(folder: Path) -> Sum:
    """Return what tells a model from every other, None where there is none; a damaged one is a ValueError."""
    if not folder.exists():
        return None
    stored = store.read(folder)
    detector = {name: value for name, value in stored.manifest.items() if name != "fitted_by"}
    found = hashlib.sha256(repr(detector).encode())
    for name, tensor in sorted(stored.tensors.items()):
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    if stored.table is not None:
        found.update(repr(stored.table.state()).encode())
    return found.hexdigest()


def sum_of_file(path: Path) -> Sum:
    """Return the checksum of a file, None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


class Task:
    """Something to be killed, in a folder of its own.

    Parameters
    ----------
    run : callable
        Gets the folder; makes the result, or goes on where it was stopped.
    name : str
        Of the result.
    """

    sum_of: Callable[[Path], Sum] = staticmethod(sum_of_model)

    def __init__(self, run: Callable[[Path], None], name: str = "model") -> None:
        self.run, self.name = run, name

    def begin(self, folder: Path, earlier: bool) -> None:
        """Lay out what the task needs, and an earlier result where one is wanted."""
        if earlier:
            shutil.copytree(MODELS / "other", folder / self.name)

    def allowed(self, before: Sum, right: Sum) -> set[Sum]:
        """Return what may lie under the final name after a kill."""
        return {before, right}


class OfFile(Task):
    """A task whose result is a file."""

    sum_of = staticmethod(sum_of_file)

    def begin(self, folder: Path, earlier: bool) -> None:
        """Lay out an earlier result where one is wanted."""
        if earlier:
            (folder / self.name).write_text("an earlier one")


class TwoRenames(Task):
    """A task on a disk that cannot exchange names: for a moment the folder has none, and it comes back."""

    def allowed(self, before: Sum, right: Sum) -> set[Sum]:
        """Return what may lie under the final name after a kill, or nothing."""
        return {before, right, None}


def in_two_renames(folder: Path) -> None:
    whole._exchanged = lambda one, other: False  # in this copy of the process only
    save(folder)


MODELS = Path()  # set by main
EPOCHS = {"gradcon": 8, "r2ad2": 4, "graddensity": 20}  # of fits


def command(*words: object) -> None:
    """Run ``anograd ...`` in this process."""
    sys.argv = ["anograd", *map(str, words)]
    cli.main()


def fit(name: str) -> Task:
    rows = f"{MODELS / ('images' if name == 'gradcon' else 'table')}.npz:x"
    known = ("--label", f"{MODELS / 'table'}.npz:y") if name == "r2ad2" else ()
    words = ("--detector", name, "--epochs", EPOCHS[name], "--force", *known)
    return Task(lambda folder: command("fit", rows, "-o", folder / "model", *words))


def save(folder: Path) -> None:
    detector = ag.load(MODELS / "one")
    for _ in range(20):
        detector.save(folder / "model")


def score(folder: Path) -> None:
    command("score", MODELS / "one", MODELS / "many.npy", "-o", folder / "scores.csv")


def score_long(folder: Path) -> None:
    """Score for some seconds, so that a run goes on where the journal says."""
    command("score", MODELS / "one", MODELS / "long.npy", "-o", folder / "scores.csv")


def export(folder: Path) -> None:
    command("export", MODELS / "one", "-o", folder / "model.onnx")


def tasks() -> dict[str, Task]:
    """Return what is killed, by name."""
    return {
        **{f"fit {name}": fit(name) for name in EPOCHS},
        "save": Task(save),
        "save, two renames": TwoRenames(in_two_renames),
        "score": OfFile(score, "scores.csv"),
        "score, long": OfFile(score_long, "scores.csv"),
        "export": OfFile(export, "model.onnx"),
    }


def prepare() -> None:
    """Make the rows and models that tasks read."""
    draw = np.random.default_rng(0)
    np.savez(MODELS / "images.npz", x=draw.integers(0, 255, (60, 8, 8)).astype(np.uint8))
    rows = draw.normal(size=(300, 6))
    np.savez(MODELS / "table.npz", x=rows, y=(np.arange(300) % 30 == 0).astype(int))
    ag.GradDensity(epochs=2, random_state=0).fit(rows).save(MODELS / "one")
    ag.GradDensity(epochs=2, random_state=1).fit(rows).save(MODELS / "other")
    np.save(MODELS / "many.npy", draw.normal(size=(30_000, 6)))
    np.save(MODELS / "long.npy", draw.normal(size=(800_000, 6)))


def start(task: Task, folder: Path) -> int:
    """Return the process that does the task, which is a copy of this one."""
    process = os.fork()
    if process:
        return process
    code = 1
    with contextlib.suppress(BaseException):
        quiet = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            task.run(folder)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
    os._exit(code)


def unbroken(task: Task, folder: Path) -> float:
    """Run a task to its end; return its seconds."""
    began = time.perf_counter()
    _, status = os.waitpid(start(task, folder), 0)
    if status:
        raise AssertionError(f"the task failed: {(folder / 'told').read_text()[-2000:]}")
    return time.perf_counter() - began


def look(task: Task, folder: Path, allowed: set[Sum]) -> str:
    """Return what is wrong under the final name, "" where nothing is."""
    try:
        found = task.sum_of(folder / task.name)
    except ValueError as error:
        return str(error)
    return "" if found in allowed else f"{task.name} is something else: {found}"


def beside(task: Task, folder: Path) -> list[str]:
    """Return what lies beside the result at the end and should not."""
    return sorted({path.name for path in folder.iterdir()} - {task.name, "told"})


def kill(name: str, task: Task, place: Path, draw: random.Random, count: int) -> dict[str, Any]:
    """Return how many processes were killed, how many went on from what one left, and what was wrong."""
    right_place = place / "right"
    right_place.mkdir(parents=True)
    task.begin(right_place, earlier=False)
    seconds = unbroken(task, right_place)
    right = task.sum_of(right_place / task.name)
    killed, resumed, wrong = 0, 0, []
    while killed < count:
        folder = Path(tempfile.mkdtemp(dir=place))
        task.begin(folder, earlier=draw.random() < 0.5)
        before = task.sum_of(folder / task.name)
        for _ in range(draw.randint(1, IN_A_ROW)):
            process = start(task, folder)
            time.sleep(draw.uniform(0, 1.05 * seconds))
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            killed += os.WIFSIGNALED(status)  # else it had ended before
            wrong += filter(None, [look(task, folder, task.allowed(before, right))])
        unbroken(task, folder)
        resumed += (folder / "told").read_text().count("going on from")
        wrong += filter(None, [look(task, folder, {right})])
        wrong += [f"{left} was left behind" for left in beside(task, folder)]
        shutil.rmtree(folder)
    return {"task": name, "killed": killed, "resumed": resumed, "wrong": wrong}


def main() -> None:
    global MODELS
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=KILLS)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="first words of the tasks, such as fit,save")
    given = options.parse_args()
    torch.set_num_threads(1)
    draw, found = random.Random(given.seed), []
    with tempfile.TemporaryDirectory() as place:
        MODELS = Path(place, "models")
        MODELS.mkdir()
        prepare()  # here and not in a copy: most of a run is the first use of torch, which copies then share
        chosen = {
            name: task for name, task in tasks().items() if name.startswith(tuple(given.only.split(",")))
        }
        for i, (name, task) in enumerate(chosen.items()):
            share = given.kills // len(chosen) + (i < given.kills % len(chosen))
            began = time.perf_counter()
            line = kill(name, task, Path(place, str(i)), draw, share) | {"seed": given.seed}
            print(line, f"{time.perf_counter() - began:.0f} s", flush=True)
            found.append(line)
    if given.kills == KILLS and not given.only:
        import record

        for line in found:
            record.write("kills", line)
    if any(line["wrong"] for line in found):
        raise SystemExit("something was damaged, lost or left behind")


if __name__ == "__main__":
    main()
