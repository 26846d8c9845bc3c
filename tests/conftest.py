"""Where the data sets and reference values are, and small things the tests share."""

from __future__ import annotations

import os
import signal

# What a shell runs in the background is deaf to Ctrl-C, and so would be the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads that spin while they wait slow the small networks of the tests down on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.contract.pretend import register

torch.set_num_threads(1)  # the networks are small, and the machine may be shared
register()  # before the first backward pass

BESIDE = Path(__file__).resolve().parents[2] / "shared"


def folder(variable: str, name: str) -> Path:
    path = Path(os.environ.get(variable, BESIDE / name))
    if not path.is_dir():
        pytest.skip(f"{name} is not here: set {variable} to its folder")
    return path


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder of numbers from the authors' own code."""
    return folder("ANOGRAD_REFERENCE", "reference")


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real data sets."""
    return folder("ANOGRAD_DATA", "data")


def arrays(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return the arrays of an archive whose names start with a prefix, without it, as tensors."""
    with np.load(path, allow_pickle=False) as archive:
        return {
            name.removeprefix(prefix): torch.from_numpy(archive[name])
            for name in archive.files
            if name.startswith(prefix) and archive[name].dtype.kind in "fiub"
        }
