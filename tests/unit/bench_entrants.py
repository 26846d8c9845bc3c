"""Entrants that misbehave on purpose, for the tests of the benchmark; runs name this module."""

from __future__ import annotations

import os
import time

import numpy as np

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
    "nan": Entrant(_nan, "nan", "none"),
    "pictures": Entrant(_middle, "pictures", "none", rows="images"),
}
