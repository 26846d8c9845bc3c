"""Peak memory of fit and score over tables of very different length, streamed from Parquet.

``python benchmarks/memory.py``: each fit and each score runs in a process of its own, whose largest resident
size is recorded. The tables hold normally distributed numbers, 20 columns, written in pieces to a
temporary folder; 50 rows of the first thousand are known anomalies.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import record

NAME = "memory"
COLUMNS, PIECE, KNOWN = 20, 50_000, 50

FIT = """
import resource, sys, time
import numpy, polars
import anograd as ag
import torch
torch.set_num_threads(1)
path, model, memory = sys.argv[1:]
rows = polars.scan_parquet(path)
y = rows.select("label").collect()["label"].to_numpy()
start = time.perf_counter()
detector = ag.R2AD2(random_state=0, memory=memory).fit(rows.drop("label"), y)
detector.save(model)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
SCORE = """
import resource, sys, time
import polars
import anograd as ag
import torch
torch.set_num_threads(1)
path, model, memory = sys.argv[1:]
detector = ag.load(model)
start = time.perf_counter()
scores = detector.anomaly_score(polars.scan_parquet(path).drop("label"))
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write(path: Path, n: int) -> None:
    """Write a table of n rows in row groups of 50,000."""
    import pyarrow
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, n, PIECE):
        rows = rng.normal(size=(min(PIECE, n - start), COLUMNS)).astype(np.float32)
        label = np.zeros(len(rows), dtype=np.int8)
        if not start:
            label[:KNOWN] = 1
            rows[:KNOWN] += 3
        columns = {f"x{j}": rows[:, j] for j in range(COLUMNS)} | {"label": label}
        table = pyarrow.table(columns)
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def run(code: str, *words: str) -> tuple[float, float]:
    """Return seconds and peak resident MiB of a piece of code in a process of its own."""
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    seconds, peak = map(float, found.stdout.split()[-2:])
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--memory", default="64MiB")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for n in map(int, asked.rows.split(",")):
            path, model = Path(folder, f"{n}.parquet"), Path(folder, f"model{n}")
            write(path, n)
            for stage, code in (("fit", FIT), ("score", SCORE)):
                start = time.time()
                seconds, peak = run(code, str(path), str(model), asked.memory)
                line = {
                    "stage": stage, "rows": n, "columns": COLUMNS, "memory": asked.memory,
                    "seconds": round(seconds, 2), "peak_mib": round(peak, 1),
                    "process_seconds": round(time.time() - start, 2),
                }  # fmt: skip
                record.write(NAME, line)
                print(line, flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
