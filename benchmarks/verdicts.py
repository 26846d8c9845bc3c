"""Do verdicts mean what they say? False alarms, false discoveries and budgets on real rows, beside PyOD's.

Normal rows of one data set are drawn to learn from; fresh normal rows and anomalies, drawn again for each
repetition, are judged at a false-alarm rate, at a false discovery rate and with a budget. P values refer to
the rows that `fit` held out itself ("own"), or to m other normal rows that are drawn again as well. PyOD's
detectors learn from all rows that ours are given, and take the rate as their `contamination`. Run
``python benchmarks/verdicts.py``; finished fits are not repeated.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import record
from anograd import R2AD2, GradCon
from anograd.bench import sets
from anograd.bench.rivals import pyod
from anograd.decide import Calibration

NAME = "verdicts"
ALPHA, FDR, BUDGET = 0.05, 0.1, 20
KNOWN, NORMAL, ODD = 20, 200, 40  # anomalies to learn from; rows to be judged in a repetition
POOL = 2000  # fresh normal rows that a fit scores, of which repetitions draw
REPETITIONS = 200
FITS = {100: 50, 1000: 25}  # by rows given to a fit
DRAWN = {100: (), 1000: (100, 200, 1000)}  # calibration rows drawn apart
SETS = ("creditcard", "nsl_kdd", "fashion_mnist")
INLIER = {"fashion_mnist": 0}
Scores = Callable[[Any], NDArray[np.float64]]
Raise = Callable[..., NDArray[np.bool_]]  # from scores and a rule to alarms


def ours(make: Callable[..., Any], rows: Any, known: Any, seed: int) -> tuple[Scores, dict[str, Raise], int]:
    """Return a fitted detector's scores, how it raises alarms, and its own calibration rows."""
    X = np.concatenate([rows, known])
    y = np.repeat([0, 1], [len(rows), len(known)]) if len(known) else None
    detector = make(random_state=seed, device="cpu").fit(X, y)
    return detector.anomaly_score, {"own": detector.calibration_.detect}, len(detector.calibration_.scores)


def theirs(fit: Any, rows: Any, known: Any, seed: int) -> tuple[Scores, dict[str, Raise], int]:
    """Return the same of a detector of PyOD, whose threshold is a percentile of its training's scores."""

    def flat(X: Any) -> Any:
        return X.reshape(len(X), -1) / (255 if X.dtype == np.uint8 else 1)

    score = fit(flat(rows), None, seed=seed).scores["score"]
    learned = score(flat(rows))

    def alarms(values: Any, alpha: float = 0, fdr: float = 0, budget: int = 0) -> NDArray[np.bool_]:
        if budget:
            return np.argsort(np.argsort(-values, kind="stable")) < budget
        return np.asarray(values > np.percentile(learned, 100 * (1 - (alpha or fdr))))

    return lambda X: score(flat(X)), {"own": alarms}, 0


FOREST = pyod.fitting("iforest", "IForest", lambda X, seed: {"random_state": seed, "n_jobs": 1})
# Name -> how to fit, known anomalies, rows given, on images or not.
DETECTORS: dict[str, tuple[Callable[..., Any], int, tuple[int, ...], tuple[bool, ...]]] = {
    "R2AD2, 20 known": (partial(ours, R2AD2), KNOWN, (1000,), (False,)),
    "R2AD2": (partial(ours, R2AD2), 0, (100, 1000), (False,)),
    "GradCon": (partial(ours, GradCon), 0, (100, 1000), (False,)),
    "GradCon, 5 epochs": (partial(ours, partial(GradCon, epochs=5)), 0, (100, 1000), (True,)),
    "PyOD AutoEncoder": (partial(theirs, pyod.ENTRANTS["autoencoder"].fit), 0, (100, 1000), (False, True)),
    "PyOD IForest": (partial(theirs, FOREST), 0, (100, 1000), (False, True)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--fits", type=int, help="of each cell at most")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cells = [(n, seed) for n, fits in FITS.items() for seed in range(min(fits, asked.fits or fits))]
    for n, seed in sorted(cells, key=lambda cell: cell[1] / FITS[cell[0]]):  # a run cut off has some of all
        for data in asked.data:
            for name, (fit, known, given, images) in DETECTORS.items():
                key = {"data": data, "detector": name, "n": n, "seed": seed}
                if n in given and (data in INLIER) in images and not record.done(NAME, key):
                    start = time.perf_counter()
                    line = key | measure(fit, known, data, n, seed)
                    record.write(NAME, line | {"seconds": round(time.perf_counter() - start, 1)})
                    print(data, name, n, seed, line["ways"]["own"]["false_alarms"], flush=True)


def measure(fit: Callable[..., Any], known: int, data: str, n: int, seed: int) -> dict[str, Any]:
    """Return what the alarms of one fit are worth, for each way to calibrate and each repetition."""
    found, loaded = sets.find(data), sets.load(data)
    of_normal = np.isin(loaded.kinds, INLIER.get(data, found.normal))
    rng = np.random.default_rng([n, seed])  # the same rows for every detector
    normal, odd = (rng.permutation(np.flatnonzero(kind)) for kind in (of_normal, ~of_normal))
    score, ways, own = fit(loaded.rows[normal[:n]], loaded.rows[odd[:known]], seed)
    usual = score(loaded.rows[normal[n : n + POOL]])
    strange = score(loaded.rows[odd[KNOWN : KNOWN + 400]])
    repetitions = REPETITIONS // FITS[n]
    told: dict[str, dict[str, list[float]]] = {}
    for _ in range(repetitions):
        order = rng.permutation(len(usual))
        judged, rest = usual[order[:NORMAL]], usual[order[NORMAL:]]
        scores = np.concatenate([judged, rng.permutation(strange)[:ODD]])
        drawn = {f"{m}": Calibration(rest[:m]).detect for m in (DRAWN[n] if own else ())}
        for way, alarms in (ways | drawn).items():
            others = usual if way == "own" else rest[int(way) :]
            for field, value in _judged(alarms, judged, scores, others).items():
                told.setdefault(way, {}).setdefault(field, []).append(value)
    return {
        "m": own, "known": known, "alpha": ALPHA, "fdr": FDR, "budget": BUDGET, "judged": [NORMAL, ODD],
        "regime": "clean", "ways": told,
    }  # fmt: skip


def _judged(alarms: Raise, normal: Any, scores: Any, others: Any) -> dict[str, float]:
    """Return what a repetition found; rows from number `NORMAL` on are anomalies."""
    odd = np.arange(len(scores)) >= NORMAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of levels out of reach, which the counts tell as well
        by_fdr, by_budget = alarms(scores, fdr=FDR), alarms(scores, budget=BUDGET)
        return {
            "false_alarms": round(float(alarms(normal, alpha=ALPHA).mean()), 4),
            "rate": round(float(alarms(others, alpha=ALPHA).mean()), 5),  # given these calibration rows
            "false_discoveries": round(float((by_fdr & ~odd).sum() / max(by_fdr.sum(), 1)), 4),
            "found": round(float((by_fdr & odd).sum() / ODD), 4),
            "alarms": int(by_budget.sum()),
            "false_in_budget": round(float((by_budget & ~odd).sum() / max(by_budget.sum(), 1)), 4),
        }


if __name__ == "__main__":
    main()
