"""R2-AD2 as published, with three checkpoints and with one, on its paper's sets: mostly shorter runs.

Protocol: `anograd.bench.protocols.R2AD2`, clean, at most 100 known anomalies. The small alarm network on
every set, and a sample of the normal rows where there are many. Run
``python benchmarks/r2ad2_published.py mammography``; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

import record
from anograd import R2AD2
from anograd.bench import protocols, sets
from anograd.detectors.published import SMALL
from anograd.evaluate import ranking

NAME = "r2ad2_published"
SETS = ("mammography", "creditcard", "covtype", "nsl_kdd", "mnist", "fashion_mnist")
SEEDS = (110, 210, 310, 410, 510)
CHECKPOINTS = {"published": 3, "published-1": 1}
CAPPED = ("nsl_kdd", "covtype")  # where `--rows` counts
Line = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", metavar="SET", choices=SETS, help=", ".join(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--methods", nargs="+", default=tuple(CHECKPOINTS), choices=CHECKPOINTS)
    parser.add_argument("--transfer", action="store_true", help="known anomalies of some kinds only")
    parser.add_argument("--epochs", type=int, default=100, help="of the alarm network")
    parser.add_argument(
        "--rows", type=int, default=6400, help=f"normal ones at most, on {' and '.join(CAPPED)}"
    )
    parser.add_argument("--batch", type=int, help="another batch size than the paper's")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    protocol = protocols.R2AD2(transfer=asked.transfer)
    for name in asked.sets:
        protocol.check(sets.find(name), name)
    for seed in asked.seeds:
        for name in asked.sets:
            for method in asked.methods:
                key = {
                    "data": name, "transfer": asked.transfer, "known_at_most": protocol.known, "seed": seed,
                    "method": method, "epochs": asked.epochs,
                }  # fmt: skip
                if not record.done(NAME, key):
                    split = protocol.split(sets.find(name), sets.load(name), seed)
                    line = key | measure(split, key, asked.rows, asked.batch)
                    record.write(NAME, line)
                    print(line, flush=True)


def measure(split: protocols.Split, key: Line, most: int, batch: int | None) -> Line:
    """Return what one fit came to: how well it ranks the test rows, and what it took."""
    normal, known = split.rows[split.known == 0], split.rows[split.known == 1]
    learned = normal
    if key["data"] in CAPPED and len(normal) > most:
        learned = normal[np.random.default_rng(key["seed"]).choice(len(normal), most, replace=False)]
    changes: dict[str, Any] = {"batch_size": batch} if batch is not None else {}
    detector = R2AD2.as_published(
        key["data"], epochs=key["epochs"], widths=SMALL, checkpoints=CHECKPOINTS[key["method"]],
        memory="1GiB", random_state=key["seed"], device="cpu", **changes,
    )  # fmt: skip
    began, cpu = time.perf_counter(), time.process_time()
    detector.fit(np.concatenate([learned, known]), np.repeat([0, 1], [len(learned), len(known)]))
    fitted, cpu = time.perf_counter() - began, time.process_time() - cpu
    began = time.perf_counter()
    scores = detector.anomaly_score(split.test)
    seconds = time.perf_counter() - began
    line: Line = {}
    for ending, kept in (("", slice(None)), *((f"_{part}", rows) for part, rows in split.parts.items())):
        auroc, precision = ranking(scores[kept], split.odd[kept])
        line |= {f"auroc{ending}": round(auroc, 4), f"average_precision{ending}": round(precision, 4)}
    return line | {
        "rows_per_second": round(len(split.test) / seconds),
        "regime": split.regime,
        "normal_rows": len(normal),
        "rows_trained_on": len(learned) + len(known),
        "known": len(known),
        "test_rows": len(split.test),
        "test_anomalies": int(split.odd.sum()),
        "fit_seconds": round(fitted, 2),
        "cpu_seconds": round(cpu, 2),
        "batch": detector.batch_size,
        "widths": SMALL,
        "checkpoints": detector.checkpoints,
    }


if __name__ == "__main__":
    main()
