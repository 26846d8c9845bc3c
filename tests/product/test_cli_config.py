"""Options from a file: the same names, types, ranges and choices that the command line has."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
import typer
from tests.product.conftest import fails, misused, run, works

import anograd as ag
from anograd import cli
from anograd.cli.config import Configured

COMMANDS = {
    name: one for name, one in typer.main.get_command(cli.app).every().items() if isinstance(one, Configured)
}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a file of options."""

    def write(text: str) -> object:
        (tmp_path / "run.toml").write_text(text)
        return tmp_path / "run.toml"

    return write


def wrong(path: object, *command: object) -> str:
    """Return the one line about a file that is wrong."""
    result = run(*(command or ("fit", "x.csv", "-o", "model")), "--config", path)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: {path}: ")
    return result.stderr.removeprefix(f"error: {path}: ")[:-1]


def test_a_whole_run_from_one_file(place, file, tmp_path):
    path = file(f"""
        label = "class"
        data = "{place}/x.csv"
        model = "{tmp_path}/model"
        [fit]
        output = "{tmp_path}/model"
        normal = [0, "1"]
        detector = "gradneighbours"
        epochs = 3
        batch_size = 7
        set = {{ neighbours = 3, patience = 4 }}
        [score]
        output = "{tmp_path}/scores.csv"
        budget = 4
        [evaluate]
        normal = ["0", 1]
        output = "{tmp_path}/evaluation.json"
    """)
    works("fit", "--config", path)
    given = {"epochs": 3, "batch_size": 7, "neighbours": 3, "patience": 4}
    assert given.items() <= ag.load(tmp_path / "model").get_params().items()
    assert "at budget 4" in works("score", "--config", path).stderr
    works("evaluate", "--config", path)
    assert json.loads((tmp_path / "evaluation.json").read_text())["anomalous"] == 20


def test_the_command_line_wins(place, file, tmp_path, table_model):
    path = file(f"""
        [fit]
        data = "{place}/none.csv"
        output = "{tmp_path}/model"
        epochs = 3
        normal = [0]
        label = "class"
        [score]
        model = "{table_model}"
        label = "class"
        alpha = 0.2
    """)
    works("fit", place / "x.csv", "--config", path, "--epochs", 1, "--normal", 1)
    assert ag.load(tmp_path / "model").get_params()["epochs"] == 1
    told = works("score", place / "x.csv", "-o", tmp_path / "s.csv", "--config", path)  # fills the gap
    assert "at alpha 0.2" in told.stderr
    told = works(
        "score", table_model, place / "x.csv", "-o", tmp_path / "s.csv", "--config", path, "--budget", 3
    )
    assert "at budget 3" in told.stderr  # and the file's alpha is no second rule
    both = file(f'[score]\nmodel = "{table_model}"\ndata = "{place}/x.csv"')
    said = misused("score", place / "x.csv", "-o", tmp_path / "s.csv", "--config", both)
    assert "the file gives MODEL and DATA, too: give both here, or neither" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[fit]\nepoch = 3", "[fit] has no key 'epoch'; did you mean 'epochs'? write: epochs = 1"),
        ("[fit]\nxyz = 3", "[fit] has no key 'xyz'; wanted is one of: data, output, detector, force, "),
        (
            '[fit]\nepochs = "many"',
            '[fit] epochs = "many": a whole number at least 1 is wanted; write: epochs = 1',
        ),
        ("[fit]\nepochs = 0", "[fit] epochs = 0: "),
        ("[fit]\nepochs = true", "[fit] epochs = true: a whole number at least 1 is wanted"),
        ("[fit]\nforce = 1", "[fit] force = 1: true or false is wanted; write: force = false"),
        ("[fit]\nseed = 1.5", "[fit] seed = 1.5: a whole number at least 0 is wanted; write: seed = 0"),
        ("[fit]\nlabel = 3", '[fit] label = 3: a text is wanted; write: label = "label"'),
        (
            '[fit]\nmissing = "drop"',
            '[fit] missing = "drop": one of refuse, impute is wanted; write: missing = "refuse"',
        ),
        (
            "[score]\nalpha = 5",
            "[score] alpha = 5: 5.0 was given; a rate between 0 and 1 is wanted, such as 0.05",
        ),
        (
            "[scores]\nalpha = 0.1",
            "there is no command 'scores'; did you mean 'score'?; wanted is one of: [fit], [score]",
        ),
        (
            "epoch = 1",
            "above all tables has no key 'epoch'; did you mean 'epochs' or 'patch'? write: epochs = 1",
        ),
        ("fit = 1", "fit is a command, and a table is wanted; write: [fit]"),
        ("fit", "this is no TOML: "),
    ],
)
def test_what_is_wrong_is_one_line(file, text, said):
    assert said in wrong(file(text))


def test_the_mark_that_some_editors_begin_a_file_with_is_no_fault(file):
    assert "a rate between 0 and 1 is wanted" in wrong(file("\ufeff[score]\nalpha = 5"))


def test_a_file_that_is_not_there(tmp_path):
    line = fails("fit", "x.csv", "-o", "model", "--config", tmp_path / "run.toml")
    assert f"there is no file '{tmp_path}/run.toml': anograd fit --show-config > " in line


@pytest.mark.parametrize("name", COMMANDS)
def test_the_printed_file_is_one_that_is_taken(name, file):
    text = works(name, "--show-config").stdout
    assert tomllib.loads(text) == {name: {}}  # all is commented out
    every = re.sub(r"^# (?=[a-z-]+ = )", "", text, flags=re.MULTILINE)
    options = {p.opts[0] if p.param_type_name == "argument" else p.opts[0][2:] for p in COMMANDS[name].params}
    assert options - set(tomllib.loads(every)[name]) == {"config", "show-config", "json"} & options
    lines = [line for line in every.splitlines() if not re.match("(fdr|budget|costs|set) = ", line)]
    path = file("\n".join(lines))
    result = run(name, "--config", path)
    assert str(path) not in result.stderr, result.stderr  # whatever else is missing, the file is none of it
