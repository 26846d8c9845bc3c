"""What a command says in the end: one line that a log can hold, and what kind of error it was."""

from __future__ import annotations

import json
import sys

import pytest
import typer

from anograd.cli.answer import answered, ending, one_line


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory", "failed to map"),
        (ImportError("the picture needs matplotlib"), "extra", "needs matplotlib"),
        (MemoryError(), "memory", "the memory does not suffice"),
        (OSError(13, "Permission denied", "x.csv"), "file", "Permission denied: 'x.csv'"),
        (ValueError("a\x00\x1b[31mb\nc"), "input", "a\\x00\\x1b[31mb c"),
    ],
)
def test_errors_are_one_object_of_their_kind(error, kind, said, capsys):
    with pytest.raises(typer.Exit), ending(["--json"], debug=False):
        raise error
    told = capsys.readouterr()
    assert told.out == ""
    found = json.loads(told.err)
    assert found["kind"] == kind
    assert said in found["error"]


def test_an_answer_that_cannot_be_given_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(typer.Exit), ending(["--json"], debug=False):
        answered({"rows": 1})
    assert "stdout is closed" in json.loads(capsys.readouterr().err)["error"]


def test_one_line_is_one_line():
    assert one_line("a\n b\tc\x7f") == "a b c\\x7f"
