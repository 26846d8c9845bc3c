"""The image data sets of the GradCon paper, from local files found by ``ANOGRAD_DATA``."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(os.environ.get("ANOGRAD_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
Images = NDArray[np.uint8]


def load(name: str) -> tuple[Images, Images, Images, Images]:
    """Return (x_train, y_train, x_test, y_test): images (n, C, 28, 28) uint8, labels (n,)."""
    if not FOLDER.is_dir():
        raise SystemExit(f"no data folder at {FOLDER}: set ANOGRAD_DATA")
    if name == "cifar10":
        return (*_cifar10("train"), *_cifar10("test"))
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as archive:
        x_train, x_test = (archive[f"x_{split}"][:, None] for split in ("train", "test"))
        return x_train, archive["y_train"], x_test, archive["y_test"]


def _cifar10(split: str) -> tuple[Images, Images]:
    """Read the 32 x 32 mosaics and shrink each image to 28 x 28 by Lanczos, as the published code does."""
    from PIL import Image

    images, labels = [], []
    for label, name in enumerate(CIFAR10):
        mosaic = np.asarray(Image.open(FOLDER / "cifar10" / f"{split}_{name}.webp"))
        tiles = mosaic.reshape(-1, 32, 50, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
        small = [
            np.asarray(Image.fromarray(tile).resize((28, 28), Image.Resampling.LANCZOS)) for tile in tiles
        ]
        images.append(np.stack(small).transpose(0, 3, 1, 2))
        labels.append(np.full(len(small), label, dtype=np.uint8))
    return np.concatenate(images), np.concatenate(labels)
