"""Options of a protocol are of the kind that they are meant to be, before anything is measured."""

from __future__ import annotations

from typing import Any

import pytest

from anograd.bench import protocols
from anograd.bench.roster import roster


@pytest.mark.parametrize(
    ("protocol", "options", "said"),
    [
        (protocols.ADBench, {"clean": "no"}, "clean = 'no': true or false is wanted"),
        (protocols.ADBench, {"labelled": True}, "labelled = True: a number is wanted"),
        (protocols.R2AD2, {"transfer": "false"}, "transfer = 'false': true or false is wanted"),
        (protocols.R2AD2, {"rows": -5}, "rows = -5: a number of rows from 1 is wanted"),
        (protocols.R2AD2, {"rows": 2.5}, r"rows = 2\.5: a whole number is wanted"),
        (protocols.R2AD2, {"known": True}, "known = True: a whole number is wanted"),
        (protocols.OneClass, {"inlier": 1.5}, r"inlier = 1\.5: a whole number is wanted"),
    ],
)
def test_options_of_another_kind_are_refused(protocol: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        protocol(**options)


def test_options_of_the_right_kind() -> None:
    assert protocols.ADBench(labelled=0, clean=True).clean
    assert protocols.R2AD2(rows=10, pollution=0.1).rows == 10
    assert protocols.OneClass(inlier=3, outliers=0.3).inlier == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("def x(:", "SyntaxError"),
        ("ENTRANTS = [1]", "no dict of"),
        ("ENTRANTS = {'a': len}", "no dict of"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_module_of_ones_own_that_is_wrong_is_named(
    content: str, said: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"mine_{abs(hash(content))}"
    (tmp_path / f"{name}.py").write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=rf"entrants = '{name}'.*{said}"):
        roster(name)
