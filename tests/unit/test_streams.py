"""A frame that is read in pieces gives what the frame itself gives: tables, errors, scores."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from anograd import GradCon, GradDensity, GradNorm, GradReferences, Target, fit_together
from anograd.constraint import mean_gradient
from anograd.data import is_frame, number_of_rows
from anograd.detectors.rows import encode
from anograd.lazy import collect, is_lazy, slices
from anograd.spill import Rows, Some
from anograd.table import Table


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr("anograd.lazy.SLICE", 7)


def mixed(n: int = 100) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "amount": draw.normal(size=n) * 1e3,
            "city": draw.choice(["Rome", "Oslo", "Bonn"], n),
            "vip": draw.random(n) < 0.5,
            "count": draw.integers(0, 9, n),
            "shop": draw.choice([f"shop {i}" for i in range(110)], n),
            "none": [None] * n,
        },
        schema_overrides={"shop": pl.Categorical, "none": pl.Float64},
    )


def state(table: Table) -> dict:
    numbers = np.stack([table._low, table._half, table._median])
    return {**table.state(), "numbers": numbers.tolist(), "keys": table._keys}


def assert_alike(frame: pl.DataFrame, normal=None, missing="impute") -> None:
    whole, pieces = Table(missing).fit(frame, normal), Table(missing).fit(frame.lazy(), normal)
    assert repr(state(pieces)) == repr(state(whole))
    streamed = np.concatenate(list(pieces.stream(frame.lazy())))
    np.testing.assert_array_equal(streamed, whole.transform(frame))


def test_what_is_lazy():
    frame = mixed()
    assert is_lazy(frame.lazy())
    assert not is_frame(frame.lazy())
    assert not is_lazy(frame)
    assert number_of_rows(frame.lazy()) == number_of_rows(frame) == 100
    found = list(slices(frame.lazy()))
    assert [start for start, _ in found] == list(range(0, 100, 7))
    assert pl.concat([piece for _, piece in found]).equals(frame)


@pytest.mark.parametrize("normal", [None, np.arange(100) % 3 > 0, np.arange(100) > 40])
@pytest.mark.parametrize("columns", [None, ["amount", "count"], ["city", "vip"]])
def test_a_stream_is_encoded_as_the_frame(normal, columns):
    frame = mixed()
    assert_alike(frame if columns is None else frame.select(columns), normal)


cell = st.one_of(st.none(), st.floats(allow_infinity=False))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(cell, st.one_of(st.none(), st.sampled_from("abcde")), st.integers(-9, 9), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_any_stream_is_encoded_as_the_frame(rows):
    schema = {"x": pl.Float64, "c": pl.String, "n": pl.Int64}
    frame = pl.DataFrame([row[:3] for row in rows], schema=schema, orient="row")
    normal = np.array([row[3] for row in rows])
    normal[0] = True
    assert_alike(frame, normal)


def spoiled(column: str, row: int, value: object) -> pl.DataFrame:
    frame = mixed().drop("none")
    cells = frame[column].to_list()
    cells[row] = value
    return frame.with_columns(pl.Series(column, cells, dtype=frame[column].dtype))


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (spoiled("amount", 51, None), r"NaN at row 51, column 0 \('amount'\).*\(1 such cells in all\)"),
        (spoiled("count", 9, None), r"NaN at row 9, column 3 \('count'\)"),
        (spoiled("amount", 50, np.inf), r"infinity at row 50, column 0 \('amount'\)"),
        (spoiled("shop", 22, None), r"NaN at row 22, column 4 \('shop'\)"),
        (
            spoiled("amount", 51, None).with_columns(spoiled("city", 20, None)["city"]),
            r"NaN at row 20, column 1 \('city'\).*\(2 such cells in all\)",
        ),
        (mixed().with_columns(when=pl.date(2024, 1, 1)), "'when' holds dates or times"),
        (mixed().drop("none").with_columns(id=pl.int_range(100).cast(pl.String)), "'id' looks like text"),
        (mixed().head(0), r"Found array with 0 sample\(s\) \(shape=\(0, 6\)\)"),
    ],
)
def test_a_stream_is_refused_as_the_frame(frame, said):
    for X in (frame, frame.lazy()):
        with pytest.raises(ValueError, match=said) as caught:
            Table().fit(X)
        if X is frame:
            expected = str(caught.value)
    assert str(caught.value) == expected


def test_a_flaw_at_scoring_is_counted_from_the_start_of_the_whole():
    table = Table().fit(mixed().drop("none"))
    with pytest.raises(
        ValueError, match=r"NaN at row 51, column 0 \('amount'\).*\(1 such cells in rows 49 to 55\)"
    ):
        list(table.stream(spoiled("amount", 51, None).lazy()))
    with pytest.raises(ValueError, match="seen at fit time, yet now missing"):
        list(table.stream(mixed().select("city").lazy()))
    with pytest.raises(ValueError, match="0 sample"):
        list(table.stream(mixed().drop("none").head(0).lazy()))


def test_a_query_that_fails_is_named():
    with pytest.raises(
        ValueError, match="the lazy frame could not be read, its file is damaged or its query"
    ):
        collect(mixed().lazy().select("nowhere"))
    with pytest.raises(ValueError, match="the lazy frame could not be read"):
        GradCon().fit(mixed().lazy().with_columns(pl.col("city").cast(pl.Float64)))


@pytest.mark.parametrize("memory", [1, 2**20])
def test_a_stream_is_encoded_within_its_budget(memory):
    frame, detector = mixed().drop("none"), GradCon()
    normal = np.ones(100, dtype=bool)
    _, whole = encode(detector, frame, normal, raw=False, missing="refuse", memory=memory)
    _, rows = encode(detector, frame.lazy(), normal, raw=False, missing="refuse", memory=memory)
    assert rows.spilled == (memory == 1)
    assert detector.feature_names_in_.tolist() == frame.columns
    np.testing.assert_array_equal(rows.take(slice(None)), whole.take(slice(None)))


def test_a_detector_fits_and_scores_a_stream_as_the_frame(tmp_path):
    frame, y = mixed(300).drop("none"), np.arange(300) % 20 == 0
    frame.write_parquet(tmp_path / "x.parquet")
    lazy = pl.scan_parquet(tmp_path / "x.parquet")
    whole = GradCon(epochs=2, random_state=0).fit(frame, y)
    stream = GradCon(epochs=2, random_state=0).fit(lazy, y)
    np.testing.assert_array_equal(stream.calibration_.scores, whole.calibration_.scores)
    np.testing.assert_allclose(stream.anomaly_score(lazy), whole.anomaly_score(frame), rtol=1e-5)
    np.testing.assert_allclose(stream.alignment(lazy), whole.alignment(frame), rtol=1e-4, atol=1e-6)
    with pytest.warns(UserWarning, match="calibrate with rows that the model has not seen"):
        assert stream.calibrate(lazy).calibration_.scores.shape == (300,)
    with pytest.raises(ValueError, match="n_samples=1"):
        GradCon().fit(lazy.head(1))
    with pytest.raises(ValueError, match="looks like text"):
        GradCon().fit(lazy.with_columns(id=pl.int_range(pl.len()).cast(pl.String)))


@pytest.mark.parametrize(
    "detector",
    [
        GradCon(epochs=3, random_state=0),
        GradCon(epochs=2, averaging="final", random_state=0),
        GradDensity(epochs=2, random_state=0),
        GradNorm(epochs=2, random_state=0),
    ],
    ids=lambda detector: repr(detector),
)
def test_rows_in_a_file_are_learned_from_as_those_in_memory(detector, monkeypatch, tmp_path):
    frame = mixed(300).drop("none")
    kept = clone(detector).fit(frame.lazy())
    spill_all(monkeypatch)
    filed = clone(detector).set_params(checkpoint=tmp_path / "fit").fit(frame.lazy())
    assert filed.history_ == kept.history_
    np.testing.assert_array_equal(filed.calibration_.scores, kept.calibration_.scores)
    again = clone(filed).fit(frame.lazy())  # goes on from the checkpoint, which knows the rows it was made of
    np.testing.assert_array_equal(again.calibration_.scores, kept.calibration_.scores)
    with pytest.raises(ValueError, match="other data or settings"):
        clone(filed).fit(frame.reverse().lazy())


def test_rows_in_a_file_are_learned_from_in_turn(monkeypatch):
    frame = mixed(300).drop("none")
    alone = [GradCon(epochs=2, random_state=i).fit(frame.lazy()) for i in (0, 1)]
    spill_all(monkeypatch)
    together = fit_together([GradCon(epochs=2, random_state=i) for i in (0, 1)], [frame.lazy()] * 2)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.calibration_.scores, other.calibration_.scores)


class Pictures(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images, self.asked = images, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.images[index], 0


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("anograd.items.BLOCK", 30_000)
    monkeypatch.setattr("anograd.detectors.rows.BLOCK", 50_000)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "float64", "grey"])
def test_a_dataset_beyond_memory_is_learned_from_as_the_array(kind, small_blocks):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (90, 3, 16, 16)).astype("uint8" if kind == "grey" else kind)
    images = images[:, 0] if kind == "grey" else images
    images = images / 7 if kind == "float64" else images
    y = np.arange(90) % 30 == 0
    images[np.flatnonzero(y)] += 3  # known anomalies do not set the scale
    plain = GradCon(epochs=2, random_state=0)
    memory = "60KiB"  # for the rows; for scoring, too, where it decides how many go at once
    whole = clone(plain).set_params(memory=memory).fit(images, y)
    given = Pictures(images)
    filed = clone(plain).set_params(memory=memory).fit(given, y)
    assert all(count == 1 for index, count in Counter(given.asked).items() if index)
    assert filed.encoder_.pixels == whole.encoder_.pixels
    assert filed.n_features_in_ == whole.n_features_in_
    rounded = 1e-5 if kind == "float64" else 0  # what waits in a file is float32
    np.testing.assert_allclose(filed.calibration_.scores, whole.calibration_.scores, rtol=rounded)
    np.testing.assert_allclose(filed.anomaly_score(given), whole.anomaly_score(images), rtol=1e-5)


def test_references_are_taken_of_rows_in_a_file_without_holding_them(small_blocks, monkeypatch):
    images = np.random.default_rng(0).random((300, 1, 8, 8), dtype=np.float32)
    y = np.arange(300) % 50 == 0
    whole = GradReferences(epochs=1, batch_size=100, random_state=0, memory="60KiB").fit(images, y)
    given = []

    def watched(target, x, batch_size):
        given.append(x)
        return mean_gradient(target, x, batch_size)

    monkeypatch.setattr("anograd.detectors.gradient.mean_gradient", watched)
    filed = clone(whole).fit(Pictures(images), y)
    assert [isinstance(x, Some) for x in given] == [True, False]  # normal rows; the few known anomalies
    np.testing.assert_allclose(filed.anomaly_score(images), whole.anomaly_score(images), rtol=1e-5)
    np.testing.assert_allclose(filed.twin_score(images), whole.twin_score(images), rtol=1e-5)


def test_an_adopted_network_takes_a_dataset_beyond_memory(small_blocks):
    rows = np.random.default_rng(0).normal(size=(80, 4, 6)).astype(np.float32)
    target = Target.adopt(torch.nn.Linear(6, 6), layers="weight")
    plain = GradCon(target=target, random_state=0, memory="4KiB")
    filed, whole = plain.fit(Pictures(rows)), clone(plain).fit(rows)
    np.testing.assert_array_equal(filed.calibration_.scores, whole.calibration_.scores)
    np.testing.assert_allclose(filed.anomaly_score(Pictures(rows)), whole.anomaly_score(rows), rtol=1e-5)


def test_a_flaw_in_a_dataset_beyond_memory_is_named(small_blocks):
    images = np.zeros((60, 1, 16, 16), dtype=np.float32)
    images[50, 0, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"items 29 to 57, counted from 29.*NaN at row 21, channel 0, pixel"):
        GradCon(memory="4KiB").fit(Pictures(images))
    with pytest.raises(ValueError, match="item 40 of Pictures has shape"):
        GradCon(memory="4KiB").fit(Pictures([*images[:40], images[0, 0]]))


def spill_all(monkeypatch) -> None:
    allocate = Rows.allocate.__func__
    monkeypatch.setattr(Rows, "allocate", classmethod(lambda cls, n, shape, _: allocate(cls, n, shape, 0)))


def test_an_adopted_network_takes_a_stream_whole():
    X = pl.DataFrame(np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32))
    target = Target.adopt(torch.nn.Linear(4, 4), layers="weight")
    stream, whole = (GradCon(target=target, random_state=0).fit(rows) for rows in (X.lazy(), X))
    np.testing.assert_array_equal(stream.anomaly_score(X.lazy()), whole.anomaly_score(X))


KEYS = pl.LazyFrame({"amount": [1.0, 2.0, 3.0], "more": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (lambda x: x.unique(), "its UNIQUE rows.*maintain_order=True"),
        (lambda x: x.group_by("amount").agg(pl.col("count").sum()), "its AGGREGATE rows"),
        (lambda x: x.sort("amount"), "its SORT BY rows"),
        (lambda x: x.join(KEYS, on="amount", how="left"), "its LEFT JOIN rows.*give it an order"),
        (lambda x: x.select(pl.all().shuffle()), "its shuffle rows.*give it an order"),
    ],
)
def test_a_query_whose_rows_come_in_no_fixed_order_is_refused(query, said):
    table = Table().fit(mixed().select("amount", "count"))
    lazy = query(mixed().lazy().select("amount", "count"))
    for call in (lambda: Table().fit(lazy), lambda: list(table.stream(lazy)), lambda: list(slices(lazy))):
        with pytest.raises(ValueError, match=said):
            call()


@pytest.mark.parametrize(
    "query",
    [
        lambda x: x.unique(maintain_order=True),
        lambda x: x.sort("amount", maintain_order=True),
        lambda x: x.group_by("amount", maintain_order=True).agg(pl.col("count").sum()),
        lambda x: x.filter(pl.col("amount") > 0).with_columns(count=pl.col("count") * 2),
        lambda x: pl.concat([x, x]),
    ],
)
def test_a_query_in_a_fixed_order_is_read_in_it(query):
    lazy = query(mixed().lazy().select("amount", "count"))
    assert pl.concat([piece for _, piece in slices(lazy)]).equals(lazy.collect())
