"""What the documentation shows is true: its code prints what the pages say, and no detector is forgotten."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from docs import pages
from docs._ext import records

from anograd.cli.app import ABOUT, function
from anograd.cli.schema import schema
from anograd.detectors import DETECTORS

ROOT = Path(__file__).resolve().parents[2]
NAMES = {page.relative_to(pages.DOCS).as_posix(): page for page in pages.PAGES}
SLOW = ("start.md", "recipes/defects.md", "recipes/intrusion.md")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NAMES]
)
def test_code_on_pages_prints_what_they_say(name: str, tmp_path: Path) -> None:
    for block, printed in pages.run(NAMES[name], tmp_path):
        if block[1] == "output":
            assert pages.agrees(block[2], printed), f"{name} says\n{block[2]}\nand prints\n{printed}"


@pytest.mark.parametrize("page", NAMES.values(), ids=NAMES)
def test_an_output_stands_behind_code(page: Path) -> None:
    kinds = ["", *(block[1] for block in pages.FENCE.finditer(page.read_text(encoding="utf-8")))]
    assert not {("", "output"), ("output", "output")} & set(pairwise(kinds))


def test_outputs_agree_but_for_rounding() -> None:
    assert pages.agrees("AUROC 0.97 of 143\n", "AUROC  0.96 of 143")
    assert not pages.agrees("AUROC 0.97", "AUROC 0.42")
    assert not pages.agrees("normal 1", "odd 1")


def test_the_page_of_methods_names_every_detector() -> None:
    text = (pages.DOCS / "methods.md").read_text(encoding="utf-8")
    assert records.MARK in text
    said = records.records()
    for detector in DETECTORS.values():
        assert f"### {detector.__name__}\n" in said
        assert detector.paper.title in said
        assert all(f"* {one}" in said for one in (*detector.paper.differences, *detector.paper.limits))


def test_the_page_of_the_api_names_every_public_name() -> None:
    import anograd as ag

    text = (pages.DOCS / "api.md").read_text(encoding="utf-8")
    assert [name for name in ag.__all__ if name != "__version__" and f"   {name}\n" not in text] == []


@pytest.mark.parametrize("page", NAMES.values(), ids=NAMES)
def test_what_a_page_imports_is_public(page: Path) -> None:
    api = (pages.DOCS / "api.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"currentmodule:: (\S+)\n(.*?)^```", api, flags=re.DOTALL | re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    for module, names in re.findall(r"^from (anograd\S*) import ([\w, ]+)$", text, flags=re.MULTILINE):
        assert [name for name in names.split(", ") if f"   {name}\n" not in listed.get(module, "")] == []


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    shared: dict[str, object] = {"__name__": "__main__"}
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    for number, cell in enumerate(cells, 1):
        exec(compile(cell, f"cell {number}", "exec"), shared)


def test_the_page_of_commands_tells_every_option() -> None:
    text = (pages.DOCS / "guide" / "commands.md").read_text(encoding="utf-8")
    assert records.COMMANDS in text
    said = records.commands()
    for name in ABOUT.keys() - {"bench"}:
        assert f"### anograd {name}\n" in said
        assert all(flag in said for key in schema(function(name)) for flag in key.flags)
