"""Files that somebody writes anew while they are scored."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.product.conftest import fails, works

import anograd as ag
import anograd.scale.scorer as module
import anograd.stream.run as run
from anograd import image_files
from anograd.scale import Scorer, parts
from anograd.stream import pieces, score_file

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


@pytest.mark.parametrize("command", ["score", "explain", "report"])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_picture_that_comes_meanwhile_does_not_take_another_ones_name(
    place, images_model, tmp_path, monkeypatch, command, count
):
    """A camera writes while a command runs: no row may be called as its neighbour."""
    folder = shutil.copytree(place / "good", tmp_path / "good")
    output = tmp_path / {"score": "x.csv", "explain": "x.json", "report": "x.html"}[command]
    more = [] if command == "score" else ["--top", 3]
    works(command, images_model, folder, "-o", output, *more)
    before = output.read_text()
    act = partial(shutil.copy, folder / "line 2" / "00.png", folder / "aaa.png")
    watched = after(count, act, image_files.read_image)
    for reader in (image_files, pieces):
        monkeypatch.setattr(reader, "read_image", watched)
    result = works(command, images_model, folder, "-o", output, *more)
    assert ("changed while it was scored" in " ".join(result.stderr.split())) == (command == "score")
    assert (folder / "aaa.png").exists()
    if command == "report":  # which says when it was made
        assert re.findall(r"[0-9]+\.png", output.read_text()) == re.findall(r"[0-9]+\.png", before)
    else:
        assert output.read_text() == before


def test_a_picture_that_goes_meanwhile_is_named(place, images_model, tmp_path, monkeypatch):
    folder = shutil.copytree(place / "good", tmp_path / "good")
    read = pieces.read_image

    def watched(root, name):
        (root / name).unlink()
        return read(root, name)

    monkeypatch.setattr(pieces, "read_image", watched)
    line = fails("score", images_model, folder, "-o", tmp_path / "x.csv")
    assert "00.png' is gone since the folder was listed: run it again" in line
