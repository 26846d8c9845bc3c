"""Fits detectors and keeps what came out: alone, or as one of the processes that torchrun starts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from anograd import R2AD2, GradCon, GradDensity, GradScoreTest
from anograd.cli import app
from anograd.ranks import together

TABLE = np.random.default_rng(0).normal(size=(113, 7))
IMAGES = load_digits().images[:70].astype(np.float32)[:, None]
SEED: dict[str, Any] = {"random_state": 0, "device": "cpu"}

# 80 rows to train on (70 %): the last batches are uneven, and of one row only where batches have 3.
FITS = {
    "total": (lambda: GradCon(epochs=4, **SEED), TABLE),
    "recon": (lambda: GradCon(epochs=4, reference="recon", averaging="ema", **SEED), TABLE),
    "final": (lambda: GradCon(epochs=2, averaging="final", **SEED), TABLE),
    "uneven": (lambda: GradCon(epochs=2, batch_size=3, keep="reconstruction", **SEED), TABLE),
    "images": (lambda: GradCon(epochs=2, batch_size=15, **SEED), IMAGES),
    "noise": (lambda: GradCon(epochs=2, target="vae", **SEED), IMAGES),
    "density": (lambda: GradDensity(epochs=2, **SEED), TABLE),
    "checkpoints": (lambda: R2AD2(epochs=1, dropout=0.0, checkpoints=2, **SEED), TABLE),
    "turns": (lambda: GradScoreTest(target="rotations", epochs=2, batch_size=3, **SEED), IMAGES),
    "hidden": (lambda: GradScoreTest.for_tables(epochs=2, batch_size=3, size=32, **SEED), TABLE),
    "dropout": (lambda: R2AD2(epochs=1, checkpoints=1, **SEED), TABLE),
}


def found(name: str) -> dict[str, np.ndarray]:
    """Fit, and return weights, reference, history and scores."""
    make, rows = FITS[name]
    detector = make().fit(rows)
    targets = detector.targets_ if hasattr(detector, "targets_") else [detector.target_]
    weights = [p.detach().flatten().double() for one in targets for p in one.module.parameters()]
    reference = [r.flatten().double() for r in getattr(detector, "reference_", {}).values()]
    history = [] if hasattr(detector, "targets_") else [list(one.values()) for one in detector.history_]
    return {
        "weights": torch.cat(weights).numpy(),
        "reference": torch.cat(reference or [torch.zeros(0)]).numpy(),
        "history": np.array(history),
        "scores": detector.anomaly_score(rows),
    }


def stopped_after(epoch: int) -> Any:
    def observe(name: str, data: Any) -> None:
        if name == "epoch" and data["epoch"] == epoch:
            raise InterruptedError

    return observe


def resumed(folder: Path) -> None:
    """Fit, stop on every rank after two epochs, go on from the one file, save from every rank."""
    for observe in (stopped_after(2), False):
        detector = GradCon(epochs=4, checkpoint=folder / "kept", progress=observe, **SEED)
        try:
            detector.fit(TABLE).save(folder / "model")
        except InterruptedError:
            torch.distributed.barrier()  # a process that is started again finds the file written
            assert (folder / "kept").exists()


def typed(folder: Path, rank: int) -> None:
    """Fit by the command line, and keep what it says."""
    np.save(folder / f"x{rank}.npy", TABLE)
    line = ["fit", f"{folder}/x{rank}.npy", "-o", f"{folder}/typed", "--detector", "gradcon"]
    line += ["--epochs", "4", "--device", "cpu"]
    result = CliRunner().invoke(app, line)
    (folder / f"said{rank}").write_text(f"{result.exit_code} {result.output}")


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    rank = together().rank
    for name in FITS:
        np.savez(folder / f"{name}{rank}.npz", **found(name))
    resumed(folder)
    try:
        GradCon(epochs=1, random_state=rank, device="cpu").fit(TABLE)
    except ValueError as error:
        (folder / f"refused{rank}").write_text(str(error))
    typed(folder, rank)


if __name__ == "__main__":
    main()
