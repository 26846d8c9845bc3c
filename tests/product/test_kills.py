"""Killed at a random moment: nothing is damaged, and the next run ends as an unbroken one would have."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no system without fork")
def test_kills_at_random_moments():
    """A few of what the script does a hundred times, at other moments each day."""
    seed = os.getpid()
    command = [sys.executable, str(SCRIPT), "--kills", "8", "--seed", str(seed)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, f"seed {seed}: {told.stdout} {told.stderr}"
    lines = [ast.literal_eval(line[: line.rindex("}") + 1]) for line in told.stdout.splitlines()]
    assert {line["task"] for line in lines} >= {"fit gradcon", "fit r2ad2", "save", "score"}
    assert all(line["wrong"] == [] for line in lines)
    assert sum(line["killed"] for line in lines) > 0
