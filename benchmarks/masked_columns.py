"""Hidden columns told from the others: `GradScoreTest.for_tables` on the sets that settings are chosen by.

Clean regime, no labels, half of the anomalies and a quarter of the normal rows tested
(`development_sets.py`). Beside its score: its twin, the loss alone, the statistic alone, the default
`GradScoreTest`, and `R2AD2` without known anomalies. Run ``python benchmarks/masked_columns.py``; finished
runs are not repeated.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import development_sets
import record
from anograd import R2AD2, GradScoreTest
from anograd.score import ScoreTest

NAME = "masked_columns"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=list(development_sets.SETS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for seed in range(arguments.seeds):
        for name in arguments.data:
            key = {"data": name, "seed": seed}
            if not record.done(NAME, key):
                line = key | run(name, seed)
                record.write(NAME, line)
                print(line, flush=True)


def run(name: str, seed: int) -> dict[str, Any]:
    split = development_sets.split(name, seed).flat()
    rows, test = split.rows[split.known == 0], split.test
    how: dict[str, Any] = {"random_state": seed, "device": "cpu"}
    began = time.perf_counter()
    masked = GradScoreTest.for_tables(**how).fit(rows)
    seconds = time.perf_counter() - began
    scores = {
        "score": masked.anomaly_score(test),
        "twin": masked.twin_score(test),
        **_apart(masked, test),
        "default": GradScoreTest(**how).fit(rows).anomaly_score(test),
        "r2ad2": R2AD2(**how).fit(rows).anomaly_score(test),
    }
    return {
        "protocol": "development set, clean training data, no labels",
        "training_rows": len(rows),
        "test_rows": len(test),
        "columns": rows.shape[1],
        "kept_epoch": masked.kept_epoch_,
        "fit_seconds": round(seconds, 1),
        **{f"auroc_{key}": round(float(roc_auc_score(split.odd, one)), 4) for key, one in scores.items()},
    }


def _apart(detector: GradScoreTest, test: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return the loss and the statistic, which the score is made of."""
    found = torch.from_numpy(detector.features(test))
    assert isinstance(detector.score_, ScoreTest)
    with torch.no_grad():
        statistic = detector.score_.statistic(found[:, 1:])
    return {"loss": found[:, 0].numpy(), "statistic": statistic.numpy()}


if __name__ == "__main__":
    main()
