"""R2-AD2 on the sets of its paper beside its rivals: ranking, cost of a fit and of a score.

Clean regime: the rows to learn from hold no unlabelled anomaly, and at most 100 known ones are labelled.
Splits: `table_sets`. Run ``python benchmarks/r2ad2_tables.py mammography``; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest, RandomForestClassifier

import record
import table_sets
from anograd import R2AD2
from anograd.bench.rivals import a3, columns
from anograd.detectors.published import SIZES, SMALL
from anograd.evaluate import ranking
from table_sets import Split

NAME = "r2ad2_tables"
SEEDS = (110, 210, 310, 410, 510)
TREES = 500
FROM_ONE_FIT = ("default", "twin", "novelty")
METHODS = (*FROM_ONE_FIT, "columns", "published", "published-1", "a3", "forest", "isolation")
CAPPED = ("nsl_kdd", "covtype")  # where `--published-rows` counts
Line = dict[str, Any]
Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]
Fitted = dict[str, Score]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", metavar="SET", help=", ".join(table_sets.SETS))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="with commas between")
    parser.add_argument("--methods", default=",".join(METHODS), help="with commas between")
    parser.add_argument("--transfer", action="store_true", help="known anomalies of some kinds only")
    parser.add_argument("--known", type=int, default=100, help="known anomalies at most")
    parser.add_argument("--epochs-published", type=int, default=100, help="of its alarm network")
    parser.add_argument("--epochs-a3", type=int, default=100, help="of its alarm network")
    parser.add_argument(
        "--published-rows", type=int, default=6400, help="normal rows at most, on " + " and ".join(CAPPED)
    )
    parser.add_argument("--published-batch", type=int, help="another batch size than the paper's")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    methods = arguments.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        raise SystemExit(f"no method {', '.join(unknown)}: name some of {', '.join(METHODS)}")
    for seed in map(int, arguments.seeds.split(",")):
        for name in arguments.sets:
            run(name, seed, methods, arguments)


def run(name: str, seed: int, methods: list[str], arguments: argparse.Namespace) -> None:
    """Measure what has not been measured yet on one split."""
    groups = [("default", [method for method in FROM_ONE_FIT if method in methods])]
    groups += [(method, [method]) for method in methods if method not in FROM_ONE_FIT]
    found: Split | None = None
    for fitted, wanted in groups:
        keys = {
            method: {
                "data": name,
                "transfer": arguments.transfer,
                "known_at_most": arguments.known,
                "seed": seed,
                "method": method,
                "epochs": epochs_of(method, arguments),
            }
            for method in wanted
        }
        if all(record.done(NAME, key) for key in keys.values()):
            continue
        found = found or table_sets.split(name, seed, arguments.known, arguments.transfer)
        began, cpu = time.perf_counter(), time.process_time()
        scores, more = fit(fitted, name, found, seed, arguments)
        cost = {
            "fit_seconds": round(time.perf_counter() - began, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
        }
        for method, key in keys.items():
            if not record.done(NAME, key):
                line = key | measure(found, scores[method]) | described(found) | cost | more
                line["fit_of"] = fitted
                record.write(NAME, line)
                print(line, flush=True)


def epochs_of(method: str, arguments: argparse.Namespace) -> int | None:
    """Return the epochs of the alarm network where the paper fixes them; else None."""
    if method.startswith("published"):
        return int(arguments.epochs_published)
    return int(arguments.epochs_a3) if method == "a3" else None


def described(data: Split) -> Line:
    return {
        "regime": "clean",
        "normal_rows": len(data.normal),
        "rows_trained_on": len(data.normal) + len(data.known),
        "known": len(data.known),
        "test_rows": len(data.test),
        "test_anomalies": int(data.odd.sum()),
    }


def measure(data: Split, score: Score) -> Line:
    """Return how well a score ranks the test rows, and how fast it is."""
    began = time.perf_counter()
    scores = score(data.test)
    seconds = time.perf_counter() - began
    auroc, precision = ranking(scores, data.odd)
    line = {
        "auroc": round(auroc, 4),
        "average_precision": round(precision, 4),
        "rows_per_second": round(len(data.test) / seconds),
    }
    rare = np.isin(data.kinds, table_sets.RARE)
    if rare.any():
        kept = rare | ~data.odd
        auroc, precision = ranking(scores[kept], data.odd[kept])
        line |= {"auroc_rare": round(auroc, 4), "average_precision_rare": round(precision, 4)}
    return line


def fit(method: str, name: str, data: Split, seed: int, arguments: argparse.Namespace) -> tuple[Fitted, Line]:
    """Return the scores that a fit gives, by name, and what is to be recorded beside."""
    X, y = data.labelled()
    if method == "default":
        detector = R2AD2(random_state=seed, device="cpu").fit(X, y)
        scores = {
            "default": detector.anomaly_score,
            "twin": detector.twin_score,
            "novelty": detector.novelty_score,
        }
        more = {"kept_epoch": detector.kept_epoch_, "weight": float(detector.scorer_.weight)}
        return scores, more | {"live_entries": live_entries(detector)}
    if method.startswith("published"):
        return _fit_published(method, name, data, seed, arguments)
    rows = X, y.astype(np.int8)
    if method == "columns":
        return {method: columns.fit_columns(*rows, seed=seed).scores["score"]}, {}
    if method == "a3":
        batch = SIZES[name][2]
        fitted = a3.fit_a3(*rows, widths=SMALL, batch=batch, epochs=arguments.epochs_a3, seed=seed)
        return {method: fitted.scores["score"]}, {"batch": batch, "widths": SMALL}
    return {method: _fit_forest(method, data, seed)}, {}


def live_entries(detector: R2AD2) -> float:
    """Return the share of gradient entries that move on normal rows: few do where a layer's ReLUs died."""
    shape = detector.shape_
    spread = detector.scorer_.standard.spread[: shape["checkpoints"] * shape["entries"]]
    return round(float((spread > 2e-6 * spread.max()).double().mean()), 3)


def _fit_published(
    method: str, name: str, data: Split, seed: int, arguments: argparse.Namespace
) -> tuple[Fitted, Line]:
    normal = data.normal
    if name in CAPPED and len(normal) > arguments.published_rows:
        drawn = np.random.default_rng(seed).choice(len(normal), arguments.published_rows, replace=False)
        normal = normal[drawn]
    changes: dict[str, Any] = {"epochs": arguments.epochs_published, "widths": SMALL, "memory": "1GiB"}
    if method == "published-1":
        changes["checkpoints"] = 1
    if arguments.published_batch is not None:
        changes["batch_size"] = arguments.published_batch
    detector = R2AD2.as_published(name, random_state=seed, device="cpu", **changes)
    detector.fit(np.concatenate([normal, data.known]), np.repeat([0, 1], [len(normal), len(data.known)]))
    line = {
        "rows_trained_on": len(normal) + len(data.known),
        "batch": detector.batch_size,
        "widths": SMALL,
        "checkpoints": detector.checkpoints,
    }
    return {method: detector.anomaly_score}, line


def _fit_forest(method: str, data: Split, seed: int) -> Score:
    """Return the score of a forest; labels count in the random one only."""
    if method == "isolation":
        isolation = IsolationForest(n_estimators=TREES, random_state=seed, n_jobs=1).fit(data.flat().normal)
        return lambda rows: -isolation.score_samples(rows.reshape(len(rows), -1))
    forest = RandomForestClassifier(TREES, random_state=seed, n_jobs=1).fit(*data.flat().labelled())
    return lambda rows: forest.predict_proba(rows.reshape(len(rows), -1))[:, 1]


if __name__ == "__main__":
    main()
