"""Are explanations faithful? How fast an anomaly's score falls as its parts are put right, the blamed first.

Each anomaly that raises an alarm is put right column by column (images: patch by patch), each part taking the
value of the nearest normal row, in three orders: by `explain`, by the reconstruction error, by chance. What
is left of the score, from 1 (nothing put right) to 0 (all), is averaged over the share put right: the
smaller the area, the better the order. Run ``python benchmarks/deletion.py``; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import record
from anograd import R2AD2, GradNeighbours, GradScoreTest
from anograd.bench import sets
from anograd.bench.protocols import R2AD2 as Protocol
from anograd.bench.protocols import Split
from anograd.explain import patches

NAME = "deletion"
SEEDS = (0, 1, 2)
ROWS, ANOMALIES, SHARES = 3000, 60, np.linspace(0, 1, 11)
SIDE = {"digits": 2, "fashion_mnist": 4}
DETECTORS: dict[str, dict[str, Callable[..., Any]]] = {
    "digits": {"GradScoreTest": GradScoreTest},
    "fashion_mnist": {"GradScoreTest": GradScoreTest},
    "creditcard": {"R2AD2": R2AD2, "GradNeighbours": GradNeighbours},
    "nsl_kdd": {"R2AD2": R2AD2, "GradNeighbours": GradNeighbours},
}
EPOCHS = {"GradScoreTest": {"epochs": 10}, "GradNeighbours": {"epochs": 30}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=list(DETECTORS), choices=list(DETECTORS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for seed in SEEDS:
        for name in asked.data:
            for called, make in DETECTORS[name].items():
                key = {"data": name, "detector": called, "seed": seed}
                if not record.done(NAME, key):
                    line = key | measure(name, called, make, seed)
                    record.write(NAME, line)
                    print(line, flush=True)


def measure(name: str, called: str, make: Callable[..., Any], seed: int) -> dict[str, Any]:
    """Return the areas under the curves of each order, mean over anomalies."""
    split = Protocol(rows=ROWS).split(sets.find(name), sets.load(name), seed)
    detector = make(random_state=seed, device="cpu", **EPOCHS.get(called, {})).fit(split.rows, split.known)
    normal, odd = split.rows[split.known == 0], _alarmed(detector, split, seed)
    found = detector.explain(odd, normal=normal, patch=SIDE.get(name, 1))
    expected = np.asarray(found.expected, dtype=np.float32)
    shape = odd.shape[1:]
    groups = patches(shape, SIDE[name]).numpy() if name in SIDE else np.arange(shape[0])
    count = int(groups.max()) + 1
    error = (odd - _reconstructed(detector, odd)) ** 2
    orders = {
        "explain": -_by_group(found.features, groups, count),
        "reconstruction": -_by_group(error, groups, count),
        "chance": np.random.default_rng(seed).random((len(odd), count)),
    }
    line = {"anomalies": len(odd), "parts": count, "regime": "clean", "normal_rows": len(normal)}
    for order, values in orders.items():
        curve = _curve(detector, odd, expected, groups, np.argsort(values, axis=1))
        line[f"area_{order}"] = round(float(np.trapezoid(curve, SHARES)), 4)
        line[f"curve_{order}"] = [round(float(one), 4) for one in curve]
    return line


def _alarmed(detector: Any, split: Split, seed: int) -> Any:
    """Return anomalies of the test that raise an alarm, drawn."""
    alarms = np.flatnonzero(split.odd & detector.detect(split.test, alpha=0.05))
    drawn = np.random.default_rng(seed).permutation(alarms)[:ANOMALIES]
    return split.test[drawn]


def _reconstructed(detector: Any, rows: Any) -> Any:
    return detector.explain(rows, patch=10**6).expected.astype(np.float32)


def _by_group(values: Any, groups: Any, count: int) -> Any:
    flat = np.asarray(values, dtype=float).reshape(len(values), -1)
    return np.stack([flat[:, groups.ravel() == group].sum(1) for group in range(count)], axis=1)


def _curve(detector: Any, rows: Any, expected: Any, groups: Any, order: Any) -> Any:
    """Return what is left of the score at each share put right, mean over rows."""
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(order.shape[1])[None], axis=1)
    ranks = place[:, groups]  # of each entry's group, (n, ...)
    scores = []
    for share in SHARES:
        repaired = np.where(ranks < round(share * order.shape[1]), expected, rows)
        scores.append(detector.anomaly_score(repaired))
    first, last = scores[0], scores[-1]
    fall = np.where(first - last > 0, first - last, np.nan)
    return np.nanmean([(one - last) / fall for one in scores], axis=1)


if __name__ == "__main__":
    main()
