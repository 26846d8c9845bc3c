"""What each detector's score costs: time and memory beside one forward and backward pass of its network.

``python benchmarks/detector_costs.py``. One thread; a table of 40 columns in batches of 512 through a dense
network, and images of 28 x 28 in batches of 128 through a convolutional one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

import record
from anograd import detectors
from anograd.detectors import DETECTORS, Detector
from engine import medians, peak_bytes

NAME = "detector_costs"
ROWS: Mapping[str, tuple[int, ...]] = {"table": (512, 40), "images": (128, 1, 28, 28)}
VARIANTS: Mapping[str, Callable[..., Detector]] = {
    **{kind.__name__: kind for kind in DETECTORS.values() if kind is not detectors.GradientDetector},
    "GradScoreTest(fisher='projected')": lambda **given: detectors.GradScoreTest(fisher="projected", **given),
}


def ways(detector: Any, x: Tensor) -> dict[str, Callable[[], Any]]:
    """Return the score of a batch, and the training step of the same network that it is measured by."""
    target = detector.targets_[-1] if hasattr(detector, "targets_") else detector.target_
    module = target.module.requires_grad_(True)
    rows = x.to(next(module.parameters()).dtype)

    def forward_backward() -> Tensor:
        module.zero_grad(set_to_none=True)
        loss: Tensor = target.loss(module(rows), rows).mean()
        torch.autograd.backward(loss)
        return loss.detach()

    return {"forward + backward": forward_backward, "score": lambda: detector._score_batch(x)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    for kind, shape in ROWS.items():
        rng = np.random.default_rng(0)
        X = rng.random((400, *shape[1:]), dtype=np.float32)
        y = np.repeat([0, 1], [390, 10])
        for name, make in VARIANTS.items():
            detector = make(epochs=1, random_state=0, device="cpu").fit(X, y)
            x = torch.from_numpy(rng.random(shape, dtype=np.float32))
            named = ways(detector, x)
            seconds = medians(named, repeats)
            # A first call may still take what an earlier one left behind, and so seem to take nothing.
            peaks = {way: max(peak_bytes(run) for _ in range(3)) for way, run in named.items()}
            line = {
                "detector": name,
                "rows": kind,
                "batch": shape[0],
                "milliseconds": round(1e3 * seconds["score"], 2),
                "times_forward_backward": round(seconds["score"] / seconds["forward + backward"], 2),
                "peak_mib": round(peaks["score"] / 2**20, 2),
                "peak_times_forward_backward": round(peaks["score"] / peaks["forward + backward"], 2),
                "repeats": repeats,
            }
            record.write(NAME, line)
            print(line, flush=True)


if __name__ == "__main__":
    main()
