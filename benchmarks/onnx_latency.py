"""How far a detector's ONNX file is from PyTorch, and how long each takes.

``python benchmarks/onnx_latency.py``. 10,000 rows that the fit has not seen, at batches of 1, 7 and 512. One
thread each, the two in turn, medians; both go from raw rows to p values. A table of 40 columns, and grey
images of 28 x 28 as bytes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import anograd as ag
import record
from anograd.detectors import DETECTORS
from anograd.onnx.file import BATCHES, in_batches, opened
from anograd.onnx.inputs import inputs_of
from engine import medians

NAME = "onnx_latency"
FITTED, KNOWN = 800, 10
ON_IMAGES: Mapping[str, Callable[..., Any]] = {
    "GradCon": ag.GradCon,
    "GradCon(target='vae')": lambda **given: ag.GradCon(target="vae", **given),
    "R2AD2": ag.R2AD2,
    "GradDensity": ag.GradDensity,
    "GradScoreTest": ag.GradScoreTest,
}
ON_TABLES: Mapping[str, Callable[..., Any]] = {
    **{kind.__name__: kind for kind in DETECTORS.values() if kind is not ag.GradientDetector},
    "R2AD2.as_published": lambda **given: ag.R2AD2.as_published("mammography", calibration=0.2, **given),
}


def draw(kind: str, rows: int, random: np.random.Generator) -> Any:
    """Return rows of a few latent numbers: a table, or images."""
    size = 40 if kind == "table" else 784
    mixing = np.random.default_rng(1).normal(size=(6, size))
    hidden = random.normal(size=(rows, 6)) @ mixing + 0.3 * random.normal(size=(rows, size))
    if kind == "table":
        return hidden * 10.0 ** (np.arange(size) % 7 - 3)
    return (128 + 30 * hidden).clip(0, 255).astype(np.uint8).reshape(rows, 1, 28, 28)


def measure(name: str, make: Callable[..., Any], kind: str, rows: int, repeats: int) -> dict[str, Any]:
    """Return the differences over all rows, and the times."""
    random = np.random.default_rng(0)
    X, known = draw(kind, FITTED, random), np.arange(FITTED) < KNOWN
    detector = make(epochs=5, random_state=0, device="cpu").fit(X, known)
    fresh = draw(kind, rows, random)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        began = time.perf_counter()
        ag.export(detector, path, check=fresh[:1024])
        seconds, content = time.perf_counter() - began, path.read_bytes()
    session, feed = opened(content), inputs_of(detector.encoder_, None).feed(fresh)
    expected = detector.anomaly_score(fresh)
    scale = np.maximum(np.abs(expected), np.median(np.abs(detector.calibration_.scores)))
    differences, other = {}, 0
    for size in BATCHES:
        score, p, _ = in_batches(session, feed, size)
        differences[str(size)] = float((np.abs(score - expected) / scale).max())
        other = max(other, int((p != detector.calibration_.p_values(expected)).sum()))
    times = {}
    for size in (1, 512):
        some = {one: x[:size] for one, x in feed.items()}
        ways = {
            "onnx": lambda some=some: session.run(["p_value"], some),
            "torch": lambda size=size: detector.p_values(fresh[:size]),
        }
        times[size] = medians(ways, repeats)
    return {
        "detector": name,
        "kind": kind,
        "rows": rows,
        "seed": 0,
        "differences": differences,
        "other_p_values": other,
        "megabytes": round(len(content) / 1e6, 2),
        "export_seconds": round(seconds, 1),
        "one_row_ms": {way: round(1e3 * one, 3) for way, one in times[1].items()},
        "rows_a_second": {way: round(512 / one) for way, one in times[512].items()},
        "repeats": repeats,
        "onnxruntime": onnxruntime.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for kind, makes in (("table", ON_TABLES), ("images", ON_IMAGES)):
        for name, make in makes.items():
            if record.done(NAME, {"detector": name, "kind": kind, "rows": given.rows}):
                continue
            line = measure(name, make, kind, given.rows, given.repeats)
            record.write(NAME, line)
            print(line, flush=True)


if __name__ == "__main__":
    main()
