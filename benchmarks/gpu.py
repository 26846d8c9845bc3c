"""What a GPU makes of it: scoring and training beside the published loop, and ten networks at once.

One command, within ten minutes on one GPU; parts that were done are not measured again.
``python benchmarks/gpu.py`` writes benchmarks/results/gpu.jsonl, from which the table in the docs is made.
``--small`` runs everything in small sizes, on the CPU where there is no GPU, and writes nothing: a test.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import anograd as ag
import record
from anograd import Target
from anograd.train import seeded
from engine import CASES, ONE_BY_ONE, ways
from training import OURS, PUBLISHED, WAYS, epoch_of

SIZES = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)  # rows of MNIST's classes
Line = dict[str, Any]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="small sizes, nothing written")
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="1000 epochs are measured if they fit into it"
    )
    arguments = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.small:
        parser.error("torch sees no GPU here: run it on a machine with one, or try it with --small")
    until = time.monotonic() + 60 * arguments.minutes
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    for part, measure in PARTS.items():
        key = {"part": part, "device": name}
        if not arguments.small and record.done("gpu", key):
            continue
        # Whole parts are written, so that one that was cut off is measured again.
        for line in [{**key, **line} for line in measure(device, arguments.small, until)]:
            if not arguments.small:
                record.write("gpu", line)
            print(line, flush=True)


def seconds_of(way: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Return the median time of a call, the first one left out."""
    taken = []
    for _ in range(repeats + 1):
        synchronise(device)
        began = time.perf_counter()
        way()
        synchronise(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def scoring(device: torch.device, small: bool, until: float) -> Iterator[Line]:
    """Time a score beside forward and backward of the same batch, and beside the published loop."""
    for case, (make, shape, layers) in itertools.islice(CASES.items(), 1 if small else None):
        with seeded(0):
            net = make().to(device)
        target = Target.adopt(net, layers=layers)
        one_by_one = 0.0
        for rows in (16,) if small else (128, 1024, 8192):
            x = torch.rand((rows, *shape[1:]), device=device)
            named = ways(net, target, x)
            if not one_by_one:  # as long for each row, whatever their number
                one_by_one = seconds_of(named[ONE_BY_ONE], device, 2) / rows
            repeats = 2 if small else 20
            training = seconds_of(named["forward + backward"], device, repeats)
            own = seconds_of(named["anograd"], device, repeats)
            yield {
                "case": case,
                "rows": rows,
                "milliseconds": round(1e3 * own, 3),
                "times_forward_backward": round(own / training, 3),
                "published_times_anograd": round(one_by_one * rows / own, 1),
            }


def steps(device: torch.device, small: bool, until: float) -> Iterator[Line]:
    """Time an epoch of training with the constraint beside a plain one and the published loop's."""
    x = torch.rand((1 if small else 84) * 64, 1, 28, 28, device=device)
    taken = {way: seconds_of(epoch_of(x, way, 1), device, 1 if small else 5) for way in WAYS}
    for way in (OURS, PUBLISHED):
        yield {
            "case": f"{way}, one network",
            "seconds_an_epoch": round(taken[way], 3),
            "times_plain": round(taken[way] / taken["plain"], 2),
        }


def detectors(
    device: torch.device, classes: list[NDArray[np.uint8]], epochs: int, clock: list[float]
) -> list[ag.GradCon]:
    """Return a detector for each class; `clock` gets the time after each epoch of each."""

    def tick(name: str, told: Mapping[str, Any]) -> None:
        clock.append(time.perf_counter())

    settings = {"device": str(device), "start": "mean", "epochs": epochs, "progress": tick}
    return [ag.GradCon.as_published(random_state=i, **settings) for i in range(len(classes))]


def ten_classes(device: torch.device, small: bool, until: float) -> Iterator[Line]:
    """Time GradCon as published on MNIST's ten classes, one network after the other and all at once."""
    data, classes = digits(small)
    alone: list[float] = []
    together: list[float] = []
    epochs = 3 if small else 12
    detectors(device, classes, epochs, alone)[0].fit(classes[0])
    ag.fit_together(detectors(device, classes, epochs, together), classes)
    count = len(classes)
    each = float(np.median(np.diff(alone))) * sum(map(len, classes)) / len(classes[0])
    every = float(np.median(np.diff(together[count - 1 :: count])))
    yield {
        "case": f"GradCon as published, {count} classes of {data}",
        "seconds_an_epoch": round(every, 3),
        "in_turn_times_together": round(each / every, 2),
        "minutes_for_1000_epochs": round(1000 * every / 60, 1),
    }


def thousand_epochs(device: torch.device, small: bool, until: float) -> Iterator[Line]:
    """Measure all 1000 epochs, if they fit into what is left of the time."""
    measured = [
        one for one in record.read("gpu") if "seconds_an_epoch" in one and one["part"] == "ten classes"
    ]
    if small or not measured or time.monotonic() + 1100 * measured[-1]["seconds_an_epoch"] > until:
        return
    _, classes = digits(small)
    began = time.perf_counter()
    ag.fit_together(detectors(device, classes, 1000, []), classes)
    minutes = round((time.perf_counter() - began) / 60, 1)
    yield {"case": measured[-1]["case"], "minutes_for_1000_epochs": minutes}


def equality(device: torch.device, small: bool, until: float) -> Iterator[Line]:
    """Compare scores of one saved model on the CPU and on the device."""
    _, classes = digits(small=True)
    table = np.random.default_rng(0).normal(size=(100 if small else 400, 12))
    known = np.arange(len(table)) % 20 == 7
    fits: dict[str, tuple[Any, NDArray[Any], NDArray[Any] | None]] = {
        "GradCon, images": (partial(ag.GradCon, epochs=3), classes[0], None),
        "GradCon, table": (partial(ag.GradCon, epochs=3), table, None),
        "R2AD2, table": (partial(ag.R2AD2, epochs=2, checkpoints=1), table, known),
    }
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"anograd-gpu-{os.getpid()}"
    for name, (make, rows, y) in fits.items():
        make(random_state=0, device="cpu").fit(rows, y).save(folder)
        here, there = (
            ag.load(folder, device=on).anomaly_score(rows) for on in ("cpu", str(device))
        )  # fmt: skip
        yield {"case": name, "largest_difference": float(np.abs(here - there).max())}


def digits(small: bool) -> tuple[str, list[NDArray[np.uint8]]]:
    """Return MNIST's training images by class, (n, 1, 28, 28), or made-up ones of those sizes."""
    path = Path(os.environ.get("ANOGRAD_DATA", "shared/data")) / "mnist.npz"
    if small or not path.exists():
        rng = np.random.default_rng(0)
        sizes = [n // 100 for n in SIZES[:2]] if small else SIZES
        return "made-up images", [rng.integers(0, 256, (n, 1, 28, 28)).astype(np.uint8) for n in sizes]
    with np.load(path) as archive:
        images, digit = archive["x_train"][:, None], archive["y_train"]
    return "MNIST", [images[digit == c] for c in range(10)]


PARTS = {
    "equality": equality, "scoring": scoring, "training": steps, "ten classes": ten_classes,
    "1000 epochs": thousand_epochs,
}  # fmt: skip

if __name__ == "__main__":
    main()
