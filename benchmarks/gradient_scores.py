"""Every gradient score beside its forward-only twin and the plain loss, on tables of ADBench.

Clean regime with 10 known anomalies, which only some detectors learn from; half of the anomalies and a
quarter of the normal rows are tested (`development_sets`). All settings are defaults. One of them was chosen
on rows of these sets, seeds 0 and 1 of the seven with 3 to 10 columns that are development sets: that the
code read by gradient scores has at least 8 units. Run ``python benchmarks/gradient_scores.py``; finished runs
are not repeated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import development_sets
import record
from anograd import detectors
from anograd.bench.rivals.own import Bottleneck
from anograd.detectors import Detector
from anograd.evaluate import ranking

NAME = "gradient_scores"
SETS = (
    "2_annthyroid", "4_breastw", "7_Cardiotocography", "10_cover", "18_Ionosphere", "19_landsat",
    "22_magic.gamma", "23_mammography", "24_mnist", "29_Pima", "31_satimage-2", "33_skin", "35_SpamBase",
    "38_thyroid", "44_Wilt", "47_yeast",
)  # fmt: skip
SEEDS = (0, 1, 2, 3, 4)
KNOWN = 10
MOST_NORMAL = 2000  # to learn from
SCORES: Mapping[str, Callable[..., Detector]] = {
    "GradCon": detectors.GradCon,
    "GradDensity": detectors.GradDensity,
    "GradScoreTest": detectors.GradScoreTest,
    "GradScoreTest(fisher='projected')": lambda **given: detectors.GradScoreTest(fisher="projected", **given),
    "GradSubspace": detectors.GradSubspace,
    "GradNeighbours": detectors.GradNeighbours,
    "GradReferences": detectors.GradReferences,
    "GraN": detectors.GraN,
    "GradNorm": detectors.GradNorm,
    "GradLabels": detectors.GradLabels,
    "loss": lambda **given: Bottleneck(scorer="loss", **given),
}


def measure(name: str, seed: int, score: str) -> dict[str, Any]:
    """Return the line of one fit: ranking of the test rows by the score and by its twin."""
    split = development_sets.split(f"adbench/{name}", seed, KNOWN)
    normal, known = split.rows[split.known == 0][:MOST_NORMAL], split.rows[split.known == 1]
    X = np.concatenate([normal, known])
    y = np.repeat([0, 1], [len(normal), len(known)])
    detector: Any = SCORES[score](random_state=seed, device="cpu", calibration=0.0)
    began = time.perf_counter()
    detector.fit(X, y)
    seconds = time.perf_counter() - began
    line: dict[str, Any] = {"regime": "clean", "normal_rows": len(normal), "known": len(known)}
    line |= {"learns_from_known": detector.learns_from_known, "fit_seconds": round(seconds, 2)}
    for which, values in (
        ("score", detector.anomaly_score(split.test)),
        ("twin", detector.twin_score(split.test)),
    ):
        auroc, precision = ranking(values, split.odd)
        line |= {f"auroc_{which}": round(auroc, 4), f"average_precision_{which}": round(precision, 4)}
    return line | {"test_rows": len(split.test), "test_anomalies": int(split.odd.sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS), help="with commas between")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="with commas between")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for seed in map(int, asked.seeds.split(",")):
        for name in asked.sets.split(","):
            for score in SCORES:
                key = {"data": name, "seed": seed, "detector": score}
                if not record.done(NAME, key):
                    line = key | measure(name, seed, score)
                    record.write(NAME, line)
                    print(line, flush=True)


if __name__ == "__main__":
    main()
