"""A disk that takes no more in the middle of a file: the system says so, and nothing is half written."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from tests.product.conftest import fails, works

import anograd as ag
from anograd.stream import partial
from anograd.stream.pieces import Place

resource = pytest.importorskip("resource")
ROWS = np.random.default_rng(0).normal(size=(400, 3))


@contextmanager
def room_for(size: int):
    """Let files grow to so many bytes only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("earlier", [False, True])
def test_save(tmp_path, earlier):
    detector = ag.GradDensity(epochs=1, random_state=0).fit(ROWS)
    if earlier:
        ag.GradDensity(epochs=1, random_state=1).fit(ROWS).save(tmp_path / "model")
        scores = ag.load(tmp_path / "model").anomaly_score(ROWS)
    for size in (0, 100, 10_000):
        with room_for(size), pytest.raises(OSError, match=r"not saved in .*model', nothing is half written"):
            detector.save(tmp_path / "model")
        assert [path.name for path in tmp_path.iterdir()] == ["model"] * earlier
    if earlier:
        np.testing.assert_array_equal(ag.load(tmp_path / "model").anomaly_score(ROWS), scores)
    detector.save(tmp_path / "model")


def test_scores_that_find_no_room_say_where(tmp_path, monkeypatch):
    monkeypatch.setattr(partial, "EVERY", -1.0)
    held = partial.Partial(tmp_path / ".s.csv.partial", {"run": 1})
    said = pytest.raises(
        OSError, match=r"s\.csv\.partial', where scores are kept .*, cannot be written: .*large"
    )
    with room_for(1000), said:
        for rows in range(512, 4096, 512):
            held.add(np.zeros(512), b"", Place(rows))
    held.close(keep=False)


def test_a_fit_goes_on_when_there_is_room_again(tmp_path):
    path = tmp_path / "partial"
    made = {"epochs": 6, "random_state": 0, "checkpoint": path}
    whole = ag.GradCon(**{**made, "checkpoint": None}).fit(ROWS).anomaly_score(ROWS)

    def full_after_three(name, found):
        if found["epoch"] == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    with (
        room_for(resource.getrlimit(resource.RLIMIT_FSIZE)[0]),
        pytest.raises(OSError, match="partial' was not"),
    ):
        ag.GradCon(**made, progress=full_after_three).fit(ROWS)
    assert list(tmp_path.iterdir()) == [path]
    seen: list[str] = []
    again = ag.GradCon(**made, progress=lambda name, found: seen.append(f"{name} {found['epoch']}")).fit(ROWS)
    assert seen == ["resumed 3", "epoch 4", "epoch 5", "epoch 6"]
    np.testing.assert_array_equal(again.anomaly_score(ROWS), whole)


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet"])
def test_score(tmp_path, name):
    np.save(tmp_path / "x.npy", ROWS)
    ag.GradDensity(epochs=1, random_state=0).fit(ROWS).save(tmp_path / "model")
    out = tmp_path / "out"
    out.mkdir()
    works("score", tmp_path / "model", tmp_path / "x.npy", "-o", out / name)
    earlier = (out / name).read_bytes()
    with room_for(1000):
        line = fails("score", tmp_path / "model", tmp_path / "x.npy", "-o", out / name)
    assert f"{name}' was not written, nothing is half written" in line
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_bytes() == earlier


def test_a_place_that_cannot_be_written(tmp_path):
    detector = ag.GradDensity(epochs=1, random_state=0).fit(ROWS)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "model", "/proc/model", "/proc/none/model"):
        with pytest.raises(OSError, match=r"model was not saved in .*save elsewhere"):
            detector.save(place)
