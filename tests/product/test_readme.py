"""What a newcomer reads is true: the code in README and CONTRIBUTING runs, and its links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "docs/bench.md")


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks as small as these gain nothing from a second thread, and lose much where a core is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("page", PAGES)
def test_code_runs_from_top_to_bottom(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shared: dict[str, Any] = {"__name__": "__main__"}
    found = blocks(page, "python")
    assert found
    for number, block in enumerate(found, 1):
        exec(compile(block, f"{page}, block {number}", "exec"), shared)
    if page == "README.md":
        seen, *odd = (lines := capsys.readouterr().out.splitlines())[:4]
        assert re.fullmatch(r"p = 0\.\d\d: normal", seen)
        assert odd == ["p = 0.05: anomalous"] * 3
        false, right = (
            int(re.fullmatch(r"\w+: (\d+)% of \d+ raise an alarm", line)[1]) for line in lines[4:6]
        )
        assert false <= 12
        assert right >= 50
        assert lines[7] == "[False  True]"
        assert shared["same"].all()


def test_readme_opens_with_the_two_commands() -> None:
    first = blocks("README.md", "sh")[0].splitlines()
    targets = re.findall(r"^([a-z-]+):", text("Makefile"), flags=re.MULTILINE)
    assert [line.split("#")[0].strip() for line in first] == ["make demo", "make test"]
    assert {"demo", "test"} <= set(targets)


def test_readme_keeps_a_place_for_results() -> None:
    for part in ("images", "tables"):
        place = rf"^<!-- {part}:begin -->\n.*\n<!-- {part}:end -->$"
        assert re.search(place, text("README.md"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text(page))
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_tour_names_every_module() -> None:
    package = ROOT / "src" / "anograd"
    listed = text("CONTRIBUTING.md")
    modules = [path.relative_to(package).as_posix() for path in package.rglob("*.py") if path.name[0] != "_"]
    assert [name for name in modules if f"`{name}`" not in listed and "detectors/" not in name] == []
