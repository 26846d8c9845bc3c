"""What R2-AD2's parts are worth: sketch against raw gradients, time, and each part of the default left out.

Studies, each fit one line:

- ``sketch``: raw gradients against sketches at equal widths of the alarm networks.
- ``time``: 1 to 4 checkpoints, read in order (LSTM) or at once (dense), at equal weights of an alarm network.
- ``ablation``: one parameter of the default changed, on development sets that no reported table uses.

Run ``python benchmarks/r2ad2_variants.py STUDY``; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

import development_sets
import record
from anograd import R2AD2
from anograd.alarm import AlarmNetwork
from anograd.bench import protocols
from anograd.bench.sets import find, load
from anograd.detectors.published import SIZES, SMALL
from anograd.evaluate import ranking

NAME = "r2ad2_variants"
STUDIED = ("mammography", "creditcard")
SKETCHES = (None, 1, 8, 16)
WIDE = (40, 20, 10)  # the sketch's purpose is a target whose gradient is long
CHECKPOINTS = (1, 2, 3, 4)
AS_MANY_AS = 3  # checkpoints, read in order with the widths SMALL: so many weights all others get
TOLERANCE = 0.02
ABLATION: dict[str, dict[str, Any]] = {
    "default": {},
    "trees=None": {"trees": None},
    "columns=False": {"columns": False},
    "novelty=0": {"novelty": 0.0},
    "novelty=0.25": {"novelty": 0.25},
    "novelty=1": {"novelty": 1.0},
    "checkpoints=1": {"checkpoints": 1},
    "networks=1": {"networks": 1},
    "noise=None": {"noise": None},
    "noise=permuted": {"noise": "permuted"},
    "sketch=16": {"sketch": 16},
    "sketch=64": {"sketch": 64},
    "dropout=0.4": {"dropout": 0.4},
    "holdout=0": {"holdout": 0.0},
}
REGIMES = (("clean", False), ("clean", True), ("contaminated", False))  # each with or without transfer
Line = dict[str, Any]
Job = tuple[Line, dict[str, Any]]  # key, constructor parameters


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=("sketch", "time", "ablation"))
    parser.add_argument("--seeds", help="with commas between; 110,210,310 or, of the ablation, 0,1")
    parser.add_argument("--sets", help="with commas between; by default all of the study")
    parser.add_argument("--variants", help="with semicolons between; by default all of the study")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    arguments = parser.parse_args()
    ablation = arguments.study == "ablation"
    seeds = [int(seed) for seed in (arguments.seeds or ("0,1" if ablation else "110,210,310")).split(",")]
    known_sets = development_sets.SETS if ablation else STUDIED
    sets = arguments.sets.split(",") if arguments.sets else known_sets
    if unknown := set(sets) - set(known_sets):
        raise SystemExit(f"no set {', '.join(unknown)} in this study: name some of {', '.join(known_sets)}")
    found = {"sketch": sketches, "time": times, "ablation": ablations}[arguments.study](sets, seeds)
    wanted = arguments.variants.split(";") if arguments.variants else None
    jobs = [
        (key, changes)
        for key, changes in found
        if (wanted is None or key["variant"] in wanted) and not record.done(NAME, key)
    ]
    torch.set_num_threads(arguments.threads)
    with multiprocessing.get_context("spawn").Pool(
        arguments.workers, torch.set_num_threads, (arguments.threads,)
    ) as pool:
        for line in pool.imap_unordered(run, jobs):
            record.write(NAME, line)
            print(line, flush=True)


def sketches(sets: Sequence[str], seeds: Sequence[int]) -> Iterator[Job]:
    """Yield the fits of the study of sketches."""
    for seed in seeds:
        for name in sets:
            for hidden in (SIZES[name][0], WIDE)[: 2 if name == "mammography" else 1]:
                for size in SKETCHES:
                    variant = f"{'raw' if size is None else f'sketch={size}'}, target {hidden}"
                    yield (
                        _key("sketch", variant, name, seed),
                        {"hidden": hidden, "sketch": size, "columns": False},
                    )


def times(sets: Sequence[str], seeds: Sequence[int]) -> Iterator[Job]:
    """Yield the fits of the study of time: the paper's networks on raw gradients, and our training."""
    for seed in seeds:
        for name in sets:
            for recurrent, checkpoints in _ways():
                variant = f"{'LSTM' if recurrent else 'dense'}, T={checkpoints}"
                changes = {
                    "hidden": SIZES[name][0], "sketch": None, "checkpoints": checkpoints,
                    "recurrent": recurrent, "memory": "1GiB", "columns": False,
                }  # fmt: skip
                yield _key("time", variant, name, seed), changes


def _ways() -> Iterator[tuple[bool, int]]:
    """Yield whether recurrent and how many checkpoints; one checkpoint is dense either way."""
    for recurrent in (False, True):
        for checkpoints in CHECKPOINTS[1 if recurrent else 0 :]:
            yield recurrent, checkpoints


def ablations(sets: Sequence[str], seeds: Sequence[int]) -> Iterator[Job]:
    """Yield the fits of the ablation, one variant after the other."""
    for variant, changes in ABLATION.items():
        for regime, transfer in REGIMES:
            for seed in seeds:
                for name in sets:
                    yield _key("ablation", variant, name, seed, transfer, regime), changes


def _key(
    study: str, variant: str, name: str, seed: int, transfer: bool = False, regime: str = "clean"
) -> Line:
    return {
        "study": study, "variant": variant, "data": name,
        "regime": regime, "transfer": transfer, "seed": seed,
    }  # fmt: skip


def weights(entries: int, checkpoints: int, recurrent: bool, widths: Sequence[int]) -> int:
    """Return the trained weights of one alarm network of R2AD2."""
    in_time = recurrent and checkpoints > 1
    with torch.device("meta"):
        network = (
            AlarmNetwork(entries, checkpoints, widths)
            if in_time
            else AlarmNetwork(entries * checkpoints, 1, widths)
        )
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def equal_widths(entries: int, checkpoints: int, recurrent: bool) -> tuple[int, ...]:
    """Return widths with which an alarm network has the weights of the published one of 3 checkpoints.

    The first width is scaled; the second too in LSTMs, as they all hold two.
    """
    wanted = weights(entries, AS_MANY_AS, True, SMALL)
    in_time = recurrent and checkpoints > 1

    def widths(first: int) -> tuple[int, ...]:
        second = max(1, round(first * SMALL[1] / SMALL[0])) if in_time else SMALL[1]
        return (first, second, *SMALL[2:])

    low, high = 1, 2
    while weights(entries, checkpoints, recurrent, widths(high)) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if weights(entries, checkpoints, recurrent, widths(middle)) < wanted:
            low = middle
        else:
            high = middle
    best = min(
        (widths(first) for first in (low, high)),
        key=lambda found: abs(weights(entries, checkpoints, recurrent, found) - wanted),
    )
    off = abs(weights(entries, checkpoints, recurrent, best) / wanted - 1)
    if off > TOLERANCE:
        raise ValueError(f"widths {best} miss the {wanted} weights wanted by {off:.1%}")
    return best


def run(job: Job) -> Line:
    """Return the line of one fit."""
    key, changes = job
    data = split(key)
    if key["study"] == "time":
        entries = raw_entries(data.rows.shape[1], changes["hidden"])
        widths = equal_widths(entries, changes["checkpoints"], changes["recurrent"])
        changes = changes | {"widths": widths}
    detector = R2AD2(random_state=key["seed"], device="cpu", **changes)
    began, cpu = time.perf_counter(), time.process_time()
    detector.fit(data.rows, data.known)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    began = time.perf_counter()
    auroc, precision = ranking(detector.anomaly_score(data.test), data.odd)
    scoring = time.perf_counter() - began
    shape, chosen = detector.shape_, float(detector.scorer_.weight)
    detector.scorer_.weight.fill_(0)  # leaves the score to the alarm networks
    auroc_alarm, precision_alarm = ranking(detector.anomaly_score(data.test), data.odd)
    of_one = weights(shape["entries"], shape["checkpoints"], detector.recurrent, detector.widths)
    return key | {
        "settings": changes,
        "auroc": round(auroc, 4),
        "average_precision": round(precision, 4),
        "auroc_alarm": round(auroc_alarm, 4),
        "average_precision_alarm": round(precision_alarm, 4),
        "weight": chosen,
        "kept_epoch": detector.kept_epoch_,
        "live_entries": live_entries(detector),
        "entries": shape["entries"],
        "networks": shape["networks"],
        "input_weights": shape["checkpoints"] * shape["entries"] * detector.widths[0],
        "weights": of_one,
        "fit_seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "rows_per_second": round(len(data.test) / scoring),
        "normal_rows": int((data.known == 0).sum()),
        "known": int(data.known.sum()),
        "test_rows": len(data.test),
        "test_anomalies": int(data.odd.sum()),
    }


def split(key: Line) -> protocols.Split:
    """Return the rows of one fit: of development sets by a split of their own, of others by the paper's."""
    name, seed = key["data"], key["seed"]
    if key["regime"] == "contaminated":
        return development_sets.contaminated(name, seed)
    if name in development_sets.SETS:
        return development_sets.split(name, seed, transfer=key["transfer"])
    return protocols.R2AD2().split(find(name), load(name), seed)


def live_entries(detector: R2AD2) -> float:
    """Return the share of gradient entries that move on normal rows: few do where a layer's ReLUs died."""
    shape = detector.shape_
    spread = detector.scorer_.standard.spread[: shape["checkpoints"] * shape["entries"]]
    return round(float((spread > 2e-6 * spread.max()).double().mean()), 3)


def raw_entries(features: int, hidden: Sequence[int]) -> int:
    """Return how many weights the dense autoencoder has, so many entries a gradient."""
    widths = (features, *hidden, *reversed((features, *hidden[:-1])))
    return sum(before * after + after for before, after in pairwise(widths))


if __name__ == "__main__":
    main()
