"""Entrants that misbehave on purpose, for the tests of the benchmark; runs name this module."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from anograd.bench.entrants import Entrant, Fitted


def _middle(X, y, *, seed, power=2):
    """Score rows by their distance from the mean."""
    mean = X.mean(0)
    return Fitted(
        {"score": lambda rows: (np.abs(rows - mean) ** power).sum(tuple(range(1, rows.ndim))).astype(float)}
    )


def _drawn(X, y, *, seed):
    """Score rows by chance: the seed decides, not the row."""
    return Fitted({"score": lambda rows: np.random.default_rng(seed).random(len(rows))}, weights=7)


def _counts(X, y, *, seed):
    return Fitted(
        {
            "score": lambda rows: np.full(len(rows), float(y.sum())),
            "rows": lambda rows: rows[:, 0] * 0.0 + len(X),
        }
    )


def _slow(X, y, *, seed, seconds=0.3):
    time.sleep(seconds)
    return _middle(X, y, seed=seed)


def _dies(X, y, *, seed):
    os.kill(os.getpid(), 9)


def _raises(X, y, *, seed):
    raise RuntimeError("the solver\ndid not converge")


def _tells(X, y, *, seed):
    raise RuntimeError(os.environ.get("TOLD", "nothing"))


def _signals(X, y, *, seed):
    os.kill(os.getpid(), signal.SIGRTMIN + 1)


def _forks(X, y, *, seed):
    os.fork()
    return _middle(X, y, seed=seed)


def _starts(X, y, *, seed, note):
    """Start a process and sleep; the note says which."""
    Path(note).write_text(f"{subprocess.Popen(['sleep', '60']).pid} {os.getpid()}\n")
    time.sleep(60)


def _leaks(X, y, *, seed):
    """Score rows by chance that no seed was given for."""
    return Fitted({"score": lambda rows: np.random.rand(len(rows)) + torch.rand(len(rows)).numpy()})  # noqa: NPY002


def _shares(X, y, *, seed):
    """Learn in a process of its own, write to stdout past Python, and score with a list."""
    with multiprocessing.Pool(1) as pool:
        power = pool.apply(int, ("2",))
    os.write(1, b"from a library\n")
    return Fitted({"score": lambda rows: [float(np.abs(row).sum() ** power) for row in rows]})


def _overwrites(X, y, *, seed):
    """Write over the rows that are scored; the twin is that of `_middle`."""

    def score(rows):
        rows[:] = 0
        return np.zeros(len(rows))

    return Fitted({"score": score, "twin": _middle(X, y, seed=seed).scores["score"]})


def _nan(X, y, *, seed):
    return Fitted({"score": lambda rows: np.full(len(rows), np.nan)})


ENTRANTS = {
    "middle": Entrant(_middle, "middle", "none"),
    "drawn": Entrant(_drawn, "drawn", "none"),
    "counts": Entrant(_counts, "counts", "none", known="needed"),
    "slow": Entrant(_slow, "slow", "none"),
    "dies": Entrant(_dies, "dies", "none"),
    "raises": Entrant(_raises, "raises", "none"),
    "tells": Entrant(_tells, "tells", "none"),
    "signals": Entrant(_signals, "signals", "none"),
    "forks": Entrant(_forks, "forks", "none"),
    "starts": Entrant(_starts, "starts", "none"),
    "leaks": Entrant(_leaks, "leaks", "none"),
    "shares": Entrant(_shares, "shares", "none"),
    "forgets": Entrant(lambda X, y, seed: None, "forgets", "none"),
    "empty": Entrant(lambda X, y, seed: Fitted({}), "empty", "none"),
    "twinned": Entrant(lambda X, y, seed: Fitted({"twin": lambda R: R.sum(1)}), "twinned", "none"),
    "overwrites": Entrant(_overwrites, "overwrites", "none"),
    "wide": Entrant(lambda X, y, seed: replace(_drawn(X, y, seed=seed), weights=np.int64(9)), "wide", "none"),
    "nan": Entrant(_nan, "nan", "none"),
    "pictures": Entrant(_middle, "pictures", "none", rows="images"),
}
