"""Files that somebody writes anew while they are scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import anograd as ag
import anograd.scale.scorer as module
import anograd.stream.run as run
from anograd.scale import Scorer, parts
from anograd.stream import score_file

FRAME = pl.DataFrame(np.random.default_rng(0).normal(size=(90_000, 2)), schema=["a", "b"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    ag.GradCon(epochs=1, random_state=0).fit(FRAME[:200]).save(folder)
    return folder


def after(count: int, act, function):
    """Return a function that acts once, before it is called for the time of this number."""
    calls = []

    def wrapped(*args, **named):
        calls.append(1)
        if len(calls) == count:
            act()
        return function(*args, **named)

    return wrapped


@pytest.mark.parametrize("becomes", ["empty", "shorter", "gone"])
def test_a_folder_that_changes_is_told(model, tmp_path, monkeypatch, becomes):
    (tmp_path / "parts").mkdir()
    for i in range(3):
        FRAME[i * 30_000 : (i + 1) * 30_000].write_parquet(tmp_path / "parts" / f"{i}.parquet")
    first = tmp_path / "parts" / "0.parquet"

    def change():
        if becomes == "gone":
            first.unlink()  # which was read before
        else:
            FRAME[: 10 * (becomes == "shorter")].write_parquet(tmp_path / "parts" / "2.parquet")

    count = 3 if becomes == "gone" else 2
    monkeypatch.setattr(run, "score_encoded", after(count, change, run.score_encoded))
    with pytest.warns(UserWarning, match="changed while it was scored: the scores are of what was there"):
        score_file(model, str(tmp_path / "parts"), str(tmp_path / "scores.csv"))
    assert not list(tmp_path.glob(".*"))


def test_a_part_that_changes_is_made_anew_the_next_time(model, tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    source = tmp_path / "parts" / "0.parquet"
    FRAME[:40_000].write_parquet(source)
    (part,) = parts.find_parts(str(tmp_path / "parts"), str(tmp_path / "scores"))
    scorer = Scorer(str(model))

    def change():
        FRAME[40_000:80_000].write_parquet(tmp_path / "new.parquet")
        (tmp_path / "new.parquet").replace(source)

    own = module.score_batch
    monkeypatch.setattr(module, "score_batch", after(3, change, own))
    parts.score_part(scorer, part)
    monkeypatch.setattr(module, "score_batch", own)
    assert parts.kept(scorer, part) is None
    parts.score_part(scorer, part)
    assert parts.kept(scorer, part) is not None
    wanted = scorer(pl.read_parquet(source))["score"].to_numpy()
    found = pl.read_parquet(tmp_path / "scores" / "0.parquet")["score"].to_numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
