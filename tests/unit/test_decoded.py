"""Encoded rows read back, and which columns are unlike those of the fit, against their plain definitions."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

import anograd as ag
from anograd.decoded import Tally, Unlike, decode, in_words, settle
from anograd.table import Table

NUMBERS = st.sampled_from([-2.5, 0.0, 1.0, 7.0, 1e5])
LEVELS = st.sampled_from(["a", "b", "c", None])


def test_encoded_rows_are_decoded_to_what_they_were():
    frame = pl.DataFrame({"a": [1.5, -2.0, 1e6], "b": ["x", "y", "x"], "c": [0, 5, 5]})
    table = Table().fit(frame)
    back = decode(table, table.transform(frame))
    np.testing.assert_allclose(back[:, 0].astype(float), frame["a"].to_numpy(), rtol=1e-5, atol=0.5)
    assert back[:, 1].tolist() == ["x", "y", "x"]
    soft = table.transform(frame)
    soft[0, 1:3] = [0.4, 0.6]
    assert decode(table, settle(table, soft))[0, 1] == "y"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(NUMBERS, LEVELS, NUMBERS), min_size=1, max_size=8),
    st.lists(st.tuples(NUMBERS, LEVELS, NUMBERS), min_size=1, max_size=12),
)
def test_those_are_counted_that_hold_what_no_row_of_the_fit_held(fitted, new):
    schema = {"x": pl.Float64, "kind": pl.String, "y": pl.Float64}
    there, here = (pl.DataFrame(rows, schema=schema, orient="row") for rows in (fitted, new))
    table = Table(missing="impute").fit(there)
    tally = Tally(Table.from_skops(table.to_skops()))
    for piece in (here[:3], here[3:]):
        if len(piece):
            tally.add(table.transform(piece))
    expected = {}
    for name in ("x", "y"):
        low, high = min(there[name]), max(there[name])
        expected[name] = sum(not low <= value <= high for value in here[name])
    levels = set(there["kind"])
    expected["kind"] = 0 if None in levels else sum(level not in levels for level in here["kind"])
    least = max(5, math.ceil(0.1 * len(new)))
    found = {one.column: one.rows for one in tally.many()}
    assert found == {name: count for name, count in expected.items() if count >= least}


def test_what_is_told_names_the_columns_with_most_rows_first():
    normal = pl.DataFrame({"id": [1, 2] * 10, "kind": ["a", "b"] * 10, "flag": [0] * 20})
    table = Table().fit(normal)
    tally = Tally(table)
    tally.add(table.transform(normal))
    assert tally.many() == []
    new = pl.DataFrame({"id": [1] * 14 + [3] * 6, "kind": ["A"] * 15 + ["a"] * 5, "flag": [0] * 16 + [1] * 4})
    tally.add(table.transform(new))
    kind = Unlike("kind", 15, 0.375, "a level that the model has not seen, or none")
    assert tally.many() == [kind, Unlike("id", 6, 0.15, "a number outside 1 to 2")]
    for _ in range(4):
        tally.add(table.transform(new))
    assert tally.many()[-1] == Unlike("flag", 20, 20 / 120, "a number other than 0")


def test_seven_columns_are_told_as_five_and_two_more():
    found = [Unlike(f"c{i}", 10, 0.5, "a number other than 0") for i in range(7)]
    text = in_words(found)
    assert "'c0' holds a number other than 0, in 50% of the rows; 'c1'" in text
    assert "'c4'" in text
    assert "'c5'" not in text
    assert "and so on in 2 more columns" in text
    assert "more" not in in_words(found[:5])


def test_a_detector_tells_the_columns_whatever_the_rows_come_in():
    rng = np.random.default_rng(0)
    normal = pl.DataFrame({"a": rng.normal(size=100), "b": rng.choice(["x", "y"], 100)})
    detector = ag.GradDensity(epochs=2, random_state=0).fit(normal)
    assert ag.unlike(detector, normal) == []
    new = normal.with_columns(pl.col("b").str.to_uppercase())
    (found,) = ag.unlike(detector, new)
    assert (found.column, found.rows) == ("b", 100)
    assert ag.unlike(detector, new.to_pandas()) == ag.unlike(detector, new.lazy()) == [found]
    mixed, mask = pl.concat([normal, new]), np.repeat([True, False], 100)
    assert ag.unlike(detector, mixed, normal=mask) == ag.unlike(detector, mixed, normal=mask.tolist()) == []
    assert ag.unlike(detector, mixed, normal=~mask) == [found]


def test_images_have_no_columns():
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8)).astype(np.uint8)
    detector = ag.GradCon(epochs=1, random_state=0).fit(images // 2)
    assert ag.unlike(detector, images) == []


def test_a_detector_that_was_not_fitted_is_refused():
    with pytest.raises(NotFittedError):
        ag.unlike(ag.GradCon(), [[1.0]])


def test_a_table_saved_before_these_were_kept_loads(monkeypatch):
    whole = Table.state
    monkeypatch.setattr(
        Table, "state", lambda self: {k: v for k, v in whole(self).items() if k not in ("constant", "gaps")}
    )
    table = Table.from_skops(Table().fit([[0.0, 5.0], [10.0, 5.0]]).to_skops())
    assert (table.constant, table.gaps) == ([], [])
    np.testing.assert_array_equal(table.transform([[5.0, 6.0]]), [[0.5, 1.0]])


def test_a_level_is_named_as_it_is_spelt():
    given = pl.DataFrame({"a": ["= x", "=x", " x", "x"] * 5})
    table = Table().fit(given)
    assert decode(table, table.transform(given))[:4, 0].tolist() == ["= x", "=x", " x", "x"]


@pytest.mark.parametrize("normal", [np.ones(160, dtype=int), np.ones(7, dtype=bool)])
def test_a_mask_that_is_none(normal):
    X = np.random.default_rng(0).normal(size=(160, 2))
    detector = ag.GradDensity(epochs=1, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"one boolean a row is wanted, shape \(160,\): normal=y == 0"):
        ag.unlike(detector, X, normal=normal)
