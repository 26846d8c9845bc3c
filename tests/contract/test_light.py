"""Importing anograd costs torch and scikit-learn and no more, and nothing in it can run a stranger's code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import anograd

SOURCE = Path(anograd.__file__).parent
LATER = ("skops", "polars", "pandas", "pyarrow", "PIL", "matplotlib", "typer", "tqdm", "jinja2")


def test_extras_load_on_use() -> None:
    code = "import sys, anograd; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    without = subprocess.run(
        [sys.executable, "-c", code.replace("anograd", "torch, sklearn.base, sklearn.utils.validation")],
        check=True,
        capture_output=True,
        text=True,
    )
    added = set(loaded.stdout.split()) - set(without.stdout.split())
    assert not added & set(LATER)


def test_no_pickle_and_no_torch_load() -> None:
    forbidden = re.compile(
        r"\bimport (pickle|joblib|dill)\b|(?<!safetensors\.)torch\.load\(|allow_pickle=True"
    )
    for path in SOURCE.rglob("*.py"):
        found = forbidden.search(path.read_text())
        assert found is None, f"{path.name}: {found}"


def test_no_module_is_long() -> None:
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name


def test_torchvision_is_not_pulled_in() -> None:
    assert importlib.util.find_spec("torchvision") is None
