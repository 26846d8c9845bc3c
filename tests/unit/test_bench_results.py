"""Result lines survive a run that was cut off, and say which line is damaged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anograd.bench import results


def line(detector="loss", seed=0, **more):
    return {
        "data": "wine", "protocol": "adbench", "options": {"labels": 0.01}, "detector": detector,
        "settings": {}, "seed": seed, **({} if "failed" in more else {"scores": {}}), **more,
    }  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "lines.jsonl"


def test_what_is_appended_is_read(path):
    assert results.read(path) == []
    for seed in range(3):
        results.append(path, line(seed=seed))
    assert results.read(path) == [line(seed=seed) for seed in range(3)]


def test_the_last_line_of_a_cell_counts_where_the_first_stood(path):
    for one in (line(seed=0, failed="x"), line(seed=1), line(seed=0, scores={})):
        results.append(path, one)
    assert results.read(path) == [line(seed=0, scores={}), line(seed=1)]


def test_the_order_of_options_makes_no_other_cell():
    options = {"a": 1, "b": 2}
    turned = dict(reversed(options.items()))
    assert results.key(line(options=options)) == results.key(line(options=turned))
    assert results.key(line(options=options)) != results.key(line(options={"a": 1}))


@given(cut=st.integers(min_value=1, max_value=len(json.dumps(line(seed=1))) - 1))
def test_a_last_line_that_was_cut_off_is_no_result_and_is_removed(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "lines.jsonl"
    results.append(path, line(seed=0))
    with path.open("a") as file:
        file.write(json.dumps(line(seed=1))[:cut])
    assert results.read(path) == [line(seed=0)]
    results.append(path, line(seed=2))
    assert results.read(path) == [line(seed=0), line(seed=2)]
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("damage", ['{"data": "wi', "5", '{"data": "wine"}'])
def test_a_damaged_line_is_named(path, damage):
    results.append(path, line(seed=0))
    with path.open("a") as file:
        file.write(damage + "\n")
    results.append(path, line(seed=1))
    with pytest.raises(ValueError, match=r"line 2 of '.*lines.jsonl' is no result: .*remove the line"):
        results.read(path)


def test_put_in_order_keeps_what_it_was_not_told_of(path):
    for seed in range(4):
        results.append(path, line(seed=seed))
    results.put_in_order(path, [results.key(line(seed=seed)) for seed in (3, 9, 1)])
    assert [one["seed"] for one in results.read(path)] == [3, 1, 0, 2]


def test_a_whole_last_line_without_its_end_is_kept(path):
    for seed in range(2):
        results.append(path, line(seed=seed))
    path.write_bytes(path.read_bytes()[:-1])
    results.append(path, line(seed=2))
    assert results.read(path) == [line(seed=seed) for seed in range(3)]


@pytest.mark.parametrize(
    "cut", [b'{"data": "d"', b"\xff\xfe", json.dumps(line(failed="")).encode()[:-15] + b"}"]
)
def test_what_is_no_result_is_left_out_at_the_end_and_refused_before(path, cut):
    results.append(path, line())
    whole = path.read_bytes()
    path.write_bytes(whole + b"\n" + cut)
    assert results.read(path) == [line()]
    path.write_bytes(cut + b"\n" + whole)
    with pytest.raises(ValueError, match=r"line 1 of .* is no result"):
        results.read(path)
