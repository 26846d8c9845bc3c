"""Two processes that torchrun starts train one network together, to the numbers of one process alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.contract import ranks_fits
from tests.contract.ranks_fits import FITS, TABLE

import anograd as ag

RANDOM = ("noise", "dropout", "hidden")  # each process draws its own
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ag.__file__).parents[1])}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have left what they found."""
    folder = tmp_path_factory.mktemp("ranks")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*launch, ranks_fits.__file__, folder],
        env=ENVIRONMENT, text=True, capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.parametrize("name", FITS)
def test_ranks_end_with_the_same(folder: Path, name: str) -> None:
    first, second = (np.load(folder / f"{name}{rank}.npz") for rank in (0, 1))
    for what in ("weights", "reference", "history", "scores"):
        np.testing.assert_array_equal(first[what], second[what])


@pytest.mark.parametrize("name", [name for name in FITS if name not in RANDOM])
def test_two_processes_find_what_one_finds(folder: Path, name: str) -> None:
    """Weights, reference and scores, each against the largest of its kind."""
    alone, shared = ranks_fits.found(name), np.load(folder / f"{name}0.npz")
    for what in ("weights", "reference", "history", "scores"):
        if alone[what].size:
            apart = np.abs(shared[what] - alone[what]) / np.abs(alone[what]).max()
            # Scores of images depend on the machine's rounding: of some rows single precision tells less.
            few = what == "scores" and name == "turns"
            assert np.quantile(apart, 0.97 if few else 1.0) <= 1e-5
            assert apart.max() <= 1e-4


def test_noise_is_not_the_same_on_every_rank(folder: Path) -> None:
    """Ranks that drew alike would give the second half of a batch the noise of the first."""
    alone, shared = ranks_fits.found("noise"), np.load(folder / "noise0.npz")
    losses = shared["history"][:, 0] / alone["history"][:, 0]
    assert 1e-4 < np.abs(losses - 1).max() < 0.5


def test_an_interrupted_fit_goes_on_and_is_saved_once(folder: Path) -> None:
    whole = np.load(folder / "total0.npz")["scores"]
    np.testing.assert_array_equal(ag.load(folder / "model").anomaly_score(TABLE), whole)
    assert not (folder / "kept").exists()


def test_other_rows_or_seeds_are_refused_on_every_rank(folder: Path) -> None:
    for rank in (0, 1):
        assert (
            "every rank needs all rows, the same settings, random_state=0"
            in (folder / f"refused{rank}").read_text()
        )


def test_on_the_command_line_one_process_speaks_and_saves(folder: Path) -> None:
    said = [(folder / f"said{rank}").read_text() for rank in (0, 1)]
    assert said[0].startswith("0 ")
    assert "saved to" in said[0]
    assert said[1] == "0 "
    whole = np.load(folder / "total0.npz")["scores"]
    np.testing.assert_array_equal(ag.load(folder / "typed").anomaly_score(TABLE), whole)
