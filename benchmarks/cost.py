"""What a whole fit and score take: seconds, peak memory, rows a second; each set in a process of its own.

``python benchmarks/cost.py nsl_kdd --threads 2``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from typing import Any

import torch

import record
from anograd import R2AD2
from anograd.bench import protocols, sets
from r2ad2_published import SETS

NAME = "cost"
SEED, REPEATS = 110, 3


def measure(data: str, threads: int) -> dict[str, Any]:
    """Return the line of one set."""
    torch.set_num_threads(threads)
    split = protocols.R2AD2().split(sets.find(data), sets.load(data), SEED)
    detector = R2AD2(random_state=SEED)
    began = time.perf_counter()
    detector.fit(split.rows, split.known)
    fitted = time.perf_counter() - began
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        detector.anomaly_score(split.test)
        taken.append(time.perf_counter() - began)
    return {
        "data": data, "detector": "R2AD2", "threads": threads, "seed": SEED,
        "normal_rows": int((split.known == 0).sum()), "known": int(split.known.sum()),
        "test_rows": len(split.test), "fit_seconds": round(fitted, 1),
        "rows_per_second": round(len(split.test) / statistics.median(taken)),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", choices=SETS)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    for data in asked.sets:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            line = pool.apply(measure, (data, asked.threads))
        record.write(NAME, line)
        print(line, flush=True)


if __name__ == "__main__":
    main()
