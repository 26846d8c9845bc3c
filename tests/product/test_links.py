"""Links lead somewhere: files and headings that are there, and outside only places that are known."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
# README, CONTRIBUTING and CHANGELOG are read in the repository as well, where no documentation is built.
PAGES = [
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if not {"_build", "auto_examples", "api"} & set(page.relative_to(ROOT).parts)
]
TEXTS = [*PAGES, *(one for folder in ("src", "examples") for one in (ROOT / folder).rglob("*.py"))]
HOSTS = {"arxiv.org", "keepachangelog.com", "semver.org", "www.unb.ca"}
LINK = re.compile(r"(?<!\\)\]\(([^()\s]+)\)")
ADDRESS = re.compile(r"\bhttps?:[^\s<>\"'`)\]]*")
INCLUDE = re.compile(r"^```\{include\} (\S+)$", re.MULTILINE)
FENCE = re.compile(r"^(```|:::).*?^\1$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page, and of pages that it includes, are called in links."""
    text = page.read_text(encoding="utf-8")
    found = {anchor for name in INCLUDE.findall(text) for anchor in anchors(page.parent / name)}
    headings = HEADING.findall(FENCE.sub("", text))
    return found | {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead to no file or heading."""
    found = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        there = page if not path else (page.parent / path).resolve()
        made = path.startswith(("api.", "auto_examples/", "../auto_examples/"))  # by the build
        if re.match(r"\w+:", link) or (made and not there.exists()):
            continue
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_within(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# What it does, and `why`\n")
    page = tmp_path / "a.md"
    page.write_text("[1](b.md) [2](b.md#what-it-does-and-why) [3](c.md) [4](b.md#gone) [5](#here)\n## Here\n")
    assert broken(page) == ["c.md", "b.md#gone"]


def test_links_outside_lead_to_known_places() -> None:
    addresses = {
        one.rstrip(".,;") for text in TEXTS for one in ADDRESS.findall(text.read_text(encoding="utf-8"))
    }
    outside = {one for one in addresses if not re.match(r"http://(127\.0\.0\.1|localhost|\{)", one)}
    assert {
        one for one in outside if not one.startswith("https://") or urlsplit(one).hostname not in HOSTS
    } == set()
    assert all(re.search(r"/abs/\d{4}\.\d{4,5}$", one) for one in outside if "//arxiv.org" in one)
