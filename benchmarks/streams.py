"""Scoring of a long table from Parquet: rows a second and peak memory, by one process and by two.

``python benchmarks/streams.py`` scores 100,000 and 10,000,000 rows of 40 columns with GradCon (dense) and
R2AD2, which are fitted to 20,000 rows first. Rows are drawn from a mixture of eight Gaussians and written
once, some 1.5 GB, to ``--folder``, where they stay: a run that was cut off goes on, case by case. The
scores of all engines are compared bit by bit.

An engine is a function in `ENGINES`; one that is added there is measured and compared like the others.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import record

NAME = "streams"
COLUMNS, GROUPS, SEED = 40, 8, 0
FITTED, KNOWN = 20_000, 100
CHILD = """
import sys, time
from anograd.stream import score_file
model, *pairs = sys.argv[1:]
began = time.perf_counter()
for data, output in zip(pairs[::2], pairs[1::2]):
    score_file(model, data, output)
seconds = time.perf_counter() - began
# Not getrusage, in which the memory of the process that started this one counts.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(peak.split()[1]) / 1024)
"""
RAY = """
import sys, time
from anograd.scale import score_on_ray
model, data, output = sys.argv[1:]
began = time.perf_counter()
score_on_ray(model, data, output, workers=2)
print(time.perf_counter() - began)
"""
# Seconds of scoring, MiB at the peak of all processes together, and files of scores in the order of the rows.
Run = tuple[float, float, list[Path]]
Engine = Callable[[Path, Sequence[Path], Path], Run]  # model, parts of the table, folder for scores


def draw(n: int, seed: int) -> np.ndarray:
    """Return rows of the mixture, (n, 40) float32."""
    shape = np.random.default_rng(SEED)
    centres = 2 * shape.normal(size=(GROUPS, COLUMNS)).astype(np.float32)
    turns = (shape.normal(size=(GROUPS, COLUMNS, COLUMNS)) / np.sqrt(COLUMNS)).astype(np.float32)
    rng = np.random.default_rng([SEED, seed])
    rows = rng.normal(size=(n, COLUMNS)).astype(np.float32)
    group = rng.integers(0, GROUPS, n)
    for g in range(GROUPS):
        rows[group == g] = rows[group == g] @ turns[g] + centres[g]
    return rows


def write(folder: Path, n: int, part: int) -> list[Path]:
    """Return the parts of a table of n rows, written where they are not there yet."""
    import polars

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, start in enumerate(range(0, n, part)):
        path = folder / f"{i:03}.parquet"
        if not path.exists():
            frame = polars.DataFrame(draw(min(part, n - start), 1 + i), schema=names())
            frame.write_parquet(path.with_suffix(".new"), row_group_size=50_000)
            path.with_suffix(".new").rename(path)
        paths.append(path)
    return paths


def names() -> list[str]:
    return [f"x{j}" for j in range(COLUMNS)]


def fit(kind: str, folder: Path, rows: int) -> Path:
    """Return the folder of a fitted model."""
    import polars

    import anograd as ag

    path = folder / kind
    if not path.exists():
        odd = 4 * np.random.default_rng(SEED).normal(size=(KNOWN, COLUMNS)).astype(np.float32)
        X = polars.DataFrame(np.concatenate([draw(rows, 0), odd]), schema=names())
        y = np.arange(len(X)) >= rows
        made = ag.GradCon(target="dense", epochs=5, random_state=SEED) if kind == "gradcon" else None
        (made or ag.R2AD2(random_state=SEED)).fit(X, y).save(path)
    return path


def one_process(model: Path, parts: Sequence[Path], place: Path) -> Run:
    """Score the whole folder with one process that has a thread for each core."""
    output = place / "all.parquet"
    return *_run(model, [[(parts[0].parent, output)]], os.cpu_count() or 1), [output]


def two_processes(model: Path, parts: Sequence[Path], place: Path) -> Run:
    """Score with two processes of one thread, every second part each."""
    pairs = [(part, place / part.name) for part in parts]
    return *_run(model, [pairs[::2], pairs[1::2]], 1), [output for _, output in pairs]


def two_ray_workers(model: Path, parts: Sequence[Path], place: Path) -> Run:
    """Score with two workers of Ray; its start and end are in the seconds, all its processes in the peak."""
    import psutil

    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-c", RAY, str(model), str(parts[0].parent), str(place)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    peak = 0.0
    while process.poll() is None:
        total = 0
        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
        peak = max(peak, total / 2**20)
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"Ray's process ended with {process.returncode}")
    assert process.stdout is not None
    with process.stdout:
        return float(process.stdout.read()), peak, [place / part.name for part in parts]


ENGINES: dict[str, Engine] = {
    "one process": one_process,
    "two processes": two_processes,
    "two Ray workers": two_ray_workers,
}


def _run(model: Path, shares: Sequence[Sequence[tuple[Path, Path]]], threads: int) -> tuple[float, float]:
    """Run a process a share of (data, output), all at once; return seconds and the sum of their peaks."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    environment["POLARS_MAX_THREADS"] = str(threads)
    words = [[str(path) for pair in share for path in pair] for share in shares]
    running = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(model), *one], env=environment, stdout=-1)
        for one in words
    ]
    seconds, peak = 0.0, 0.0
    for process in running:
        said, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"a process ended with {process.returncode}")
        taken, held = map(float, said.split())
        seconds, peak = max(seconds, taken), peak + held
    return seconds, peak


def digest(outputs: Sequence[Path]) -> str:
    """Return a sum of all scores, p values and verdicts in order."""
    import polars

    sums = {name: hashlib.sha256() for name in ("score", "p_value", "anomaly")}
    for path in outputs:
        for frame in polars.scan_parquet(path).collect_batches():
            for name, one in sums.items():
                one.update(frame[name].to_numpy().tobytes())
    return hashlib.sha256(b"".join(one.digest() for one in sums.values())).hexdigest()[:16]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="100000,10000000")
    parser.add_argument("--part", type=int, default=500_000, help="rows of a part")
    parser.add_argument("--fitted", type=int, default=FITTED, help="rows to fit to")
    parser.add_argument("--models", default="gradcon,r2ad2")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "anograd_streams"))
    asked = parser.parse_args(arguments)
    for n in map(int, asked.rows.split(",")):
        parts = write(asked.folder / f"{n}", n, min(asked.part, max(1, n // 2)))
        for kind in asked.models.split(","):
            model = fit(kind, asked.folder, asked.fitted)
            for engine in asked.engines.split(","):
                key = {"detector": kind, "engine": engine, "rows": n}
                if record.done(NAME, key):
                    continue
                began = time.perf_counter()
                with tempfile.TemporaryDirectory(dir=asked.folder) as place:
                    seconds, peak, outputs = ENGINES[engine](model, parts, Path(place))
                    taken, scores = time.perf_counter() - began, digest(outputs)
                line = {
                    **key, "columns": COLUMNS, "parts": len(parts), "seed": SEED,
                    "seconds": round(seconds, 2), "process_seconds": round(taken, 2),
                    "rows_per_second": round(n / seconds), "peak_mib": round(peak, 1),
                    "scores": scores, "threads": os.cpu_count(),
                }  # fmt: skip
                record.write(NAME, line)
                print(line, flush=True)
            found = {
                one["engine"]: one["scores"]
                for one in record.read(NAME)
                if (one["detector"], one["rows"]) == (kind, n)
            }
            if len(set(found.values())) > 1:
                raise SystemExit(f"{kind}, {n:,} rows: engines differ in their scores: {found}")


if __name__ == "__main__":
    main()
