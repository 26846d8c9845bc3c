"""The benchmark of long tables, small: every engine runs, agrees with the others, and is not run twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import record
import streams


@pytest.mark.slow
def test_every_engine_gives_the_same_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    arguments = ["--rows", "3000", "--part", "700", "--fitted", "300", "--models", "gradcon", "--folder",
                 str(tmp_path / "data")]  # fmt: skip
    streams.main(arguments)
    lines = [json.loads(line) for line in (tmp_path / "results" / "streams.jsonl").read_text().splitlines()]
    assert [line["engine"] for line in lines] == list(streams.ENGINES)
    assert len({line["scores"] for line in lines}) == 1
    assert {(line["rows"], line["parts"]) for line in lines} == {(3000, 5)}
    assert all(line["peak_mib"] > 100 for line in lines)
    capsys.readouterr()
    streams.main(arguments)
    assert capsys.readouterr().out == ""
    lines[0]["scores"] = "other"
    (tmp_path / "results" / "streams.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SystemExit, match="gradcon, 3,000 rows: engines differ in their scores"):
        streams.main(arguments)
