"""Gradients at three checkpoints: one pass each by the rules, against a batched pass over stacked weights.

``python benchmarks/checkpoints.py``: milliseconds a call, median of several, both in turn in one process.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

import record
from anograd import Sketch, Target, per_sample
from anograd.gradients.fallback import stacked_gradients
from anograd.networks import DropoutAutoencoder

NAME = "checkpoints"
NETWORKS = {"mammography": (6, (5, 3, 2)), "creditcard": (29, (20, 10, 5)), "nsl_kdd": (122, (40, 20, 10))}
ROWS, REPEATS = (1, 128, 2048), 9


def one_each(targets: list[Target], x: Tensor, sketch: Sketch | None) -> Tensor:
    """Return (n, T, k) by one pass a checkpoint."""
    want = "full" if sketch is None else "sketch"
    found = [per_sample(target, x, want, sketch=sketch or Sketch()) for target in targets]
    return torch.stack([getattr(one, want) for one in found], dim=1)


def stacked(targets: list[Target], x: Tensor, sketch: Sketch | None) -> Tensor:
    """Return (n, T, k) from one batched pass, sketched afterwards where a sketch is wanted."""
    raw = stacked_gradients(targets, x)
    if sketch is None:
        return raw
    pieces, start = [], 0
    for name, parameter in targets[0].parameters().items():
        entries = parameter.numel()
        matrix = raw[..., start : start + entries].reshape(*raw.shape[:2], parameter.shape[0], -1)
        p, q = sketch.projections(name, parameter)
        matrix = matrix if p is None else p @ matrix
        pieces.append((matrix if q is None else matrix @ q.T).flatten(2))
        start += entries
    return torch.cat(pieces, dim=2)


def main() -> None:
    torch.set_num_threads(1)
    for data, (features, hidden) in NETWORKS.items():
        targets = []
        for seed in range(3):
            torch.manual_seed(seed)
            module = DropoutAutoencoder(features, hidden).eval()
            targets.append(Target.adopt(module, loss="bce_with_logits"))
        for sketch in (None, Sketch(32)):
            for n in ROWS:
                measure(data, targets, torch.rand(n, features), sketch)


def measure(data: str, targets: list[Target], x: Tensor, sketch: Sketch | None) -> None:
    """Time both ways in turn and write a line."""
    ways = (one_each, stacked)
    torch.testing.assert_close(*(way(targets, x, sketch) for way in ways), rtol=1e-4, atol=1e-6)
    times: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        for way, taken in zip(ways, times, strict=True):
            start = time.perf_counter()
            way(targets, x, sketch)
            taken.append(1e3 * (time.perf_counter() - start))
    each, once = map(statistics.median, times)
    line = {
        "data": data, "rows": len(x), "sketch": sketch.size if sketch else None,
        "each_ms": round(each, 3), "stacked_ms": round(once, 3), "ratio": round(once / each, 3),
    }  # fmt: skip
    record.write(NAME, line)
    print(line, flush=True)


if __name__ == "__main__":
    main()
