"""The benchmark for GPUs runs from end to end where there is none, in small sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu.jsonl"


@pytest.mark.slow
def test_small_sizes_run_on_any_machine_and_are_not_written_down() -> None:
    before = RESULTS.read_bytes() if RESULTS.exists() else b""
    found = subprocess.run(
        [sys.executable, "-W", "error", "benchmarks/gpu.py", "--small"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    lines = [ast.literal_eval(line) for line in found.stdout.splitlines()]
    assert {line["part"] for line in lines} == {"equality", "scoring", "training", "ten classes"}
    differences = [line["largest_difference"] for line in lines if line["part"] == "equality"]
    assert max(differences) <= 1e-4
    assert (RESULTS.read_bytes() if RESULTS.exists() else b"") == before


def test_without_a_gpu_it_says_what_to_do() -> None:
    code = "import torch, sys; torch.cuda.is_available = lambda: False; import gpu; gpu.main([])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "benchmarks", check=False
    )
    assert found.returncode == 2
    assert "torch sees no GPU here" in found.stderr
    assert "--small" in found.stderr
