"""What the command line says before any command is loaded: fast, and the same as the commands say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer
from tests.product.conftest import run

from anograd import cli
from anograd.cli.app import ABOUT

COMMANDS = typer.main.get_command(cli.app)
ALL = COMMANDS.every()
TOLD = """
import atexit, sys
from anograd.cli import main
sys.argv[0] = "anograd"
atexit.register(lambda: print([name for name in ("torch", "sklearn", "scipy") if name in sys.modules]))
main()
"""


def said(*words: str, **variables: str) -> str:
    """Return what a command line says in a process of its own, and which of the slow ones were loaded."""
    done = subprocess.run(
        [sys.executable, "-c", TOLD, *words],
        env={**os.environ, "COLUMNS": "100", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", ALL)
def test_the_list_says_what_the_command_says(name):
    own = " ".join((ALL[name].help or "").partition("\n\n")[0].split())
    assert own == ABOUT[name]


def test_every_command_is_in_the_help_with_its_line():
    words = " ".join(run("--help").output.replace("│", " ").split())
    assert all(f" {name} {one.help.partition(chr(10))[0]}" in words for name, one in ALL.items())


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--version"], "anograd "),
        (["--help"], "calibrate"),
        (["scor", "x.csv"], "Did you mean"),
        ([], "calibrate"),
        (["--fast"], "No such option"),
    ],
)
def test_what_needs_no_command_loads_none(words, wanted):
    text = said(*words)
    assert wanted in text
    assert "\n[]\n" in f"\n{text}"


@pytest.mark.parametrize(
    ("typed", "wanted", "loaded"),
    [
        ("anograd ", "calibrate", False),
        ("anograd score --bud", "--budget", True),
        ("anograd bench ", "table", True),
    ],
)
def test_a_shell_completes_commands_at_once_and_their_options(typed, wanted, loaded):
    words = typed.split(" ")
    text = said(_ANOGRAD_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1))
    assert wanted in text.splitlines()
    assert ("'torch'" in text) is loaded


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("word", ["--help", "--version"])
def test_what_comes_before_a_command_ends_in_one_line_where_it_cannot_be_printed(word):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "anograd", word], stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert done.stderr == "error: No space left on device\n"
    assert done.returncode == 1
