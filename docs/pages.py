"""The code on the pages, run from top to bottom, and what it printed beside what a page says it prints.

A page's blocks share one namespace and one folder. Python blocks are run, and so are the lines of sh blocks
that begin with ``anograd``. What a block prints stands in the ``output`` block after it, and
``python docs/pages.py`` writes it there anew.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from pathlib import Path

from typer.testing import CliRunner

DOCS = Path(__file__).resolve().parent
PAGES = (
    DOCS / "index.md",
    DOCS / "start.md",
    *sorted((DOCS / "guide").glob("*.md")),
    *sorted((DOCS / "recipes").glob("*.md")),
)
FENCE = re.compile(r"^```(python|sh|output)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def run(page: Path, folder: Path) -> Iterator[tuple[re.Match[str], str]]:
    """Run a page's code in a folder; yield each of its blocks and what the code before it has printed."""
    shared: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    with chdir(folder):
        for block in FENCE.finditer(page.read_text(encoding="utf-8")):
            kind, code = block.groups()
            if kind == "python":
                with redirect_stdout(io.StringIO()) as out:
                    exec(compile(code, f"{page.name}, at {block.start()}", "exec"), shared)
                printed = out.getvalue()
            elif kind == "sh":
                printed = "".join(command(line) for line in code.splitlines() if line.startswith("anograd "))
            yield block, printed


def command(line: str) -> str:
    """Return what a line of the shell prints."""
    from anograd.cli import app

    result = CliRunner(env={"COLUMNS": "100"}).invoke(app, shlex.split(line, comments=True)[1:])
    if result.exit_code:
        raise RuntimeError(f"{line}\n{result.output}")
    return result.stdout


def agrees(said: str, printed: str) -> bool:
    """Tell whether two outputs have the same words, and numbers that another machine may have come to."""
    words = [NUMBER.sub("#", text).split() for text in (said, printed)]
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (said, printed)]
    return words[0] == words[1] and all(
        abs(one - other) <= 0.05 + 0.05 * abs(other) for one, other in zip(*numbers, strict=True)
    )


def renewed(page: Path, folder: Path) -> str:
    """Return a page's text with its outputs made anew."""
    text, done, parts = page.read_text(encoding="utf-8"), 0, []
    for block, printed in run(page, folder):
        if block[1] == "output":
            parts += [text[done : block.start(2)], printed.rstrip() + "\n"]
            done = block.end(2)
    return "".join(parts) + text[done:]


def main() -> None:
    """Make the outputs of all pages anew, or of those that are named."""
    import torch

    torch.set_num_threads(1)
    os.environ["COLUMNS"] = "100"
    for page in [Path(name).resolve() for name in sys.argv[1:]] or PAGES:
        with tempfile.TemporaryDirectory() as folder:
            text = renewed(page, Path(folder))
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
