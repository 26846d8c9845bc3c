"""The records of all detectors and the options of all commands as Markdown, put where a page asks."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

from anograd.cli.app import ABOUT, function
from anograd.cli.schema import schema
from anograd.detectors import DETECTORS, Detector

MARK, COMMANDS = "<!-- records -->", "<!-- commands -->"
HEADS = {"differences": "How it differs from the paper", "limits": "When not to use it"}


def records() -> str:
    """Return a section for each detector: paper, forward-only twin, differences, limits."""
    return "\n\n".join(map(record, DETECTORS.values()))


def record(detector: type[Detector]) -> str:
    """Return the section of one detector."""
    paper = detector.paper
    labels = "learns from them" if detector.learns_from_known else "leaves them out of training"
    lines = [
        f"### {detector.__name__}",
        f"{paper.authors}. *{paper.title}*. {paper.venue} {paper.year}, "
        f"[arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}).",
        f"Known anomalies: {labels}. Forward-only twin: {detector.twin}. "
        f"Parameters: {{py:class}}`anograd.{detector.__name__}`.",
    ]
    for name, head in HEADS.items():
        if said := getattr(paper, name):
            lines += [f"{head}:", "\n".join(f"* {one}" for one in said)]
    return "\n\n".join(lines)


def commands() -> str:
    """Return a section for each command: what it does, its arguments and options."""
    parts = []
    for name, about in ABOUT.items():
        if name == "bench":  # which has commands of its own, and a page
            continue
        rows = [
            f"| `{', '.join(key.flags) or key.key.upper()}` | {key.info.help} | {_default(key.default)} |"
            for key in schema(function(name))
        ]
        parts += [
            f"### anograd {name}",
            about,
            "\n".join(["| option | what it is | default |", "| --- | --- | --- |", *rows]),
        ]
    return "\n\n".join(parts)


def _default(value: object) -> str:
    return "" if value is None or value is False else f"`{value}`"


def put_in_place(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the marks by what they stand for."""
    for mark, made in ((MARK, records), (COMMANDS, commands)):
        if mark in source[0]:
            source[0] = source[0].replace(mark, made())


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the reading of pages."""
    app.connect("source-read", put_in_place)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
