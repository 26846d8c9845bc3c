"""Importing anograd costs torch and scikit-learn and no more, and nothing in it can run a stranger's code."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
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
        r"\b(import|from) (pickle|joblib|dill)\b|(?<!safetensors\.)torch\.load\(|allow_pickle=True"
    )
    for path in SOURCE.rglob("*.py"):
        found = forbidden.search(path.read_text())
        assert found is None, f"{path.name}: {found}"


def test_no_module_is_long() -> None:
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name


def test_torchvision_is_not_pulled_in() -> None:
    named = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
    extras = named["optional-dependencies"].values()
    wanted = [*named["dependencies"], *(one for extra in extras for one in extra)]
    assert len(wanted) > 10
    assert not any("torchvision" in one for one in wanted)
    imports = re.compile(r"^\s*(import|from) torchvision", re.MULTILINE)
    assert not any(imports.search(path.read_text()) for path in SOURCE.rglob("*.py"))
