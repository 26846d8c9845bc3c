import functools
import io
import json
import re
import warnings
import zipfile
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import skops.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from anograd import GradCon
from anograd.table import Table

COLUMNS = {
    "amount": [1.0, 3.0, 2.0],
    "city": ["Rome", "Oslo", "Rome"],
    "vip": [True, False, True],
    "n": [4, 4, 4],
}
WIDE = pd.DataFrame(COLUMNS)


def frames():
    yield "pandas", WIDE
    yield "pandas nullable", WIDE.convert_dtypes()
    yield "pandas categorical", WIDE.astype({"city": "category"})
    yield "pandas objects", WIDE.astype(object)
    yield "pandas arrow", WIDE.convert_dtypes(dtype_backend="pyarrow")
    yield "polars", pl.DataFrame(COLUMNS)
    yield "polars categorical", pl.DataFrame(COLUMNS).with_columns(pl.col("city").cast(pl.Categorical))
    yield "polars decimal", pl.DataFrame(COLUMNS).with_columns(pl.col("amount").cast(pl.Decimal(10, 2)))
    yield "pyarrow", pa.table(COLUMNS)
    yield "pyarrow batch", pa.record_batch(COLUMNS)
    city = pa.array(COLUMNS["city"]).dictionary_encode()
    yield "pyarrow dictionary", pa.table(COLUMNS).set_column(1, "city", city)


@pytest.mark.parametrize(
    ("name", "frame"), list(frames()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_frame_is_encoded_alike(name, frame):
    table = Table().fit(frame)
    assert table.names_in == list(COLUMNS)
    assert table.names_out == [
        *("amount", "city=Oslo", "city=Rome", "city (unseen or missing)"),
        *("vip=False", "vip=True", "vip (unseen or missing)", "n"),
    ]
    assert table.origin == [0, 1, 1, 1, 2, 2, 2, 3]
    encoded = table.transform(frame)
    assert encoded.dtype == np.float32
    expected = [[0, 0, 1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 1, 0, 0, 0], [0.5, 0, 1, 0, 0, 1, 0, 0]]
    np.testing.assert_array_equal(encoded, expected)
    np.testing.assert_array_equal(Table().fit(WIDE).transform(frame), expected)


@settings(max_examples=50)
@given(X=arrays(np.float64, (6, 3), elements=st.floats(allow_nan=False, allow_infinity=False)))
@pytest.mark.filterwarnings("error")
def test_any_finite_numbers_become_finite_numbers(X):
    encoded = Table().fit(X[:4]).transform(X)
    assert np.isfinite(encoded).all()
    assert encoded[:4].min() >= 0
    assert encoded[:4].max() <= 1


def test_nothing_is_clipped():
    encoded = Table().fit([[0.0], [10.0]]).transform([[-10.0], [30.0]])
    assert encoded.ravel().tolist() == [-1.0, 3.0]


def test_constant_columns_become_the_difference():
    encoded = Table().fit([[5.0, 1.0], [5.0, 2.0]]).transform([[5.0, 1.0], [7.5, 1.0]])
    assert encoded[:, 0].tolist() == [0.0, 2.5]


def test_small_ranges_and_far_offsets_keep_their_digits():
    tiny = np.array([[1e-18], [2e-18], [3e-18]])
    np.testing.assert_allclose(Table().fit(tiny).transform(tiny).ravel(), [0, 0.5, 1], rtol=1e-6)
    far = 1e15 + np.array([[0.0], [1.0], [4.0]])
    np.testing.assert_allclose(Table().fit(far).transform(far).ravel(), [0, 0.25, 1], rtol=1e-6)


def test_integers_booleans_and_tensors():
    assert Table().fit([[0], [4]]).transform([[1]]).tolist() == [[0.25]]
    assert Table().fit(np.array([[True], [False]])).transform(np.array([[True]])).tolist() == [[1.0]]
    assert Table().fit(torch.tensor([[0.0], [2.0]])).transform(torch.tensor([[1.0]])).tolist() == [[0.5]]


def test_only_normal_rows_are_learned_from():
    frame = pd.DataFrame({"a": [0.0, 1.0, 100.0], "b": ["x", "y", "z"]})
    table = Table().fit(frame, np.array([True, True, False]))
    assert table.names_out == ["a", "b=x", "b=y", "b (unseen or missing)"]
    assert table.transform(frame)[2].tolist() == [100.0, 0.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="no row of 3 is marked normal"):
        Table().fit(frame, np.zeros(3, dtype=bool))


def test_rare_levels_share_one_and_unseen_levels_have_another():
    often = [f"level {i:03}" for i in range(100)] * 3
    frame = pl.DataFrame({"c": [*often, "rare 1", "rare 2"]})
    table = Table().fit(frame)
    assert len(table.names_out) == 102
    assert table.names_out[-2:] == ["c (other)", "c (unseen or missing)"]
    new = table.transform(pl.DataFrame({"c": ["level 000", "rare 2", "new"]}))
    assert new.argmax(axis=1).tolist() == [0, 100, 101]
    assert new.sum(axis=1).tolist() == [1, 1, 1]


def test_levels_may_be_called_as_ours():
    frame = pd.DataFrame({"c": ["(other)", "(unseen or missing)", "?"]})
    table = Table().fit(frame)
    assert table.transform(frame).argmax(axis=1).tolist() == [0, 1, 2]
    assert table.transform(pd.DataFrame({"c": ["new"]})).argmax(axis=1).tolist() == [3]


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
def test_missing_cells(library):
    frame = library({"a": [1.0, None, 3.0, 11.0], "b": ["x", "y", None, "x"]})
    with pytest.raises(ValueError, match=r"NaN at row 1, column 0 \('a'\).*2 such cells.*missing='impute'"):
        Table().fit(frame)
    encoded = Table(missing="impute").fit(frame).transform(frame)
    np.testing.assert_allclose(
        encoded, [[0, 1, 0, 0], [0.2, 0, 1, 0], [0.2, 0, 0, 1], [1, 1, 0, 0]], rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"NaN at row 0, column 1 \('b'\)"):
        Table().fit(library({"a": [1.0], "b": ["x"]})).transform(library({"a": [1.0], "b": [None]}))


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
def test_columns_without_any_value(library):
    table = Table(missing="impute").fit(library({"a": [1.0, 3.0], "b": ["x", "y"]}))
    empty = table.transform(library({"a": [None, None], "b": [None, None]}))
    assert empty.tolist() == [[0.5, 0, 0, 1]] * 2
    floats = table.transform(library({"a": [1.0, 1.0], "b": [np.nan, np.nan]}))
    assert floats.tolist() == [[0.0, 0, 0, 1]] * 2
    never = Table(missing="impute").fit(library({"a": [np.nan, np.nan]}))
    assert never.transform(library({"a": [np.nan, 2.0]})).tolist() == [[0.0], [2.0]]


@pytest.mark.parametrize("missing", ["refuse", "impute"])
def test_infinity_is_always_refused(missing):
    with pytest.raises(ValueError, match="infinity at row 1, column 0"):
        Table(missing=missing).fit([[0.0], [np.inf]])
    with pytest.raises(ValueError, match="infinity at row 0, column 0"):
        Table(missing=missing).fit([[0.0], [1.0]]).transform([[-np.inf]])


def test_text_like_columns_are_refused():
    frame = pd.DataFrame({"id": [f"row {i}" for i in range(60)], "a": range(0, 120, 2)})
    with pytest.raises(ValueError, match=r"'id' looks like text .* 60 different .*drop\(columns=\['id'\]\)"):
        Table().fit(frame)
    with pytest.raises(ValueError, match="or --drop id, or encode it as numbers"):
        Table().fit(frame)
    Table().fit(frame.head(40))
    Table().fit(frame.assign(id=[f"row {min(i, 53)}" for i in range(60)]))


@pytest.mark.parametrize("written", ["1,{:03d}.50", "{} %", "$ {}", "-{},5", "1 {:03d}"])
def test_numbers_written_as_text_are_refused(written):
    amounts = [written.format(i % 50) for i in range(100)]
    with pytest.raises(ValueError, match=r"'amount' holds numbers .* as text, such as .* or --drop amount"):
        Table().fit(pd.DataFrame({"amount": amounts}))


@pytest.mark.parametrize("written", ["1,{:03d}.50", "{} %", "$ {}"])
def test_few_numbers_written_as_text_are_categories_with_a_warning(written):
    frame = pd.DataFrame({"rate": [written.format(i % 4) for i in range(100)]})
    with pytest.warns(
        UserWarning, match=r"'rate' holds numbers .* taken for 4 categories.*1234\.5.*--drop rate"
    ):
        assert len(Table().fit(frame).names_out) == 5


@pytest.mark.parametrize("code", ["{:05d}", "{}.0", "10.0.{}.1", "{}a", "1.2.{}"])
def test_codes_of_digits_are_categories(code):
    for levels in (4, 50):
        codes = [code.format(i % levels) for i in range(100)]
        assert len(Table().fit(pd.DataFrame({"code": codes})).names_out) == levels + 1


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pl.LazyFrame])
def test_a_column_that_numbers_the_rows_is_warned_of(library):
    rng = np.random.default_rng(0)
    size, count = rng.normal(size=100), rng.integers(0, 100, 100)
    with pytest.warns(
        UserWarning, match=r"'id' numbers the rows, 7 to 106: .* X\.drop.* or --drop id"
    ) as found:
        Table().fit(library({"size": size, "id": rng.permutation(100) + 7, "count": count}))
    assert len(found) == 1
    with warnings.catch_warnings(action="error"):
        Table().fit(library({"size": size, "count": count, "half": np.arange(100) / 2}))
        Table().fit(library({"year": np.arange(1990, 2024)}))
        Table().fit(np.arange(100.0)[:, None])
        Table().fit(library({"size": np.r_[1.7e308, -1.7e308, size]}))


def test_ten_thousand_levels_are_a_hundred_and_the_rest():
    frame = pl.DataFrame({"c": [f"level {i % 10_000}" for i in range(20_000)]})
    table = Table().fit(frame)
    assert len(table.names_out) == 102
    assert table.transform(frame).sum(axis=0)[-2:].tolist() == [19_800, 0]


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
def test_dates_are_refused(library):
    moments = np.array(["2024-01-01", "2024-01-02"], dtype="datetime64[us]")
    with pytest.raises(ValueError, match=r"'when' holds dates or times .* such as the hour"):
        Table().fit(library({"when": moments}))
    with pytest.raises(ValueError, match="'long' holds dates or times"):
        Table().fit(library({"long": moments - moments[0]}))


def test_other_types_are_refused():
    with pytest.raises(ValueError, match=r"'c' is of type mixed; .*astype\(str\)"):
        Table().fit(pd.DataFrame({"c": [[1], [2]]}))
    with pytest.raises(ValueError, match="'c' is of type list"):
        Table().fit(pl.DataFrame({"c": [[1], [2]]}))
    with pytest.raises(ValueError, match="'c' is of type struct"):
        Table().fit(pl.DataFrame({"c": [{"a": 1}, {"a": 2}]}))
    with pytest.raises(ValueError, match="'c' is of type struct"):
        Table().fit(pa.table({"c": [{"a": 1}, {"a": 2}]}))
    with pytest.raises(ValueError, match="'c' is of type interval"):
        Table().fit(pd.DataFrame({"c": pd.interval_range(0, 2)}))
    with pytest.raises(ValueError, match="more than one column named 'a'"):
        Table().fit(pd.DataFrame([[1, 2]], columns=["a", "a"]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["b", "a"], "Feature names must be in the same order as they were in fit.\n"),
        (
            ["a", "z"],
            "Feature names unseen at fit time:\n- z\nFeature names seen at fit time, yet now missing:\n- b\n",
        ),
        (["a"], "Feature names seen at fit time, yet now missing:\n- b\n"),
        (["a", "b", "c"], "Feature names unseen at fit time:\n- c\n"),
    ],
)
def test_names_and_order_are_checked(columns, message):
    table = Table().fit(pd.DataFrame({"a": [0.0, 1.0], "b": [0.0, 1.0]}))
    with pytest.raises(ValueError, match="feature names") as caught:
        table.transform(pd.DataFrame({name: [0.0] for name in columns}))
    first = "The feature names should match those that were passed during fit.\n"
    assert str(caught.value).startswith(first + message)
    assert str(caught.value).endswith("X = X[['a', 'b']]")


def test_the_line_that_puts_many_columns_in_order_can_be_pasted():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 30))).rename(columns="c{}".format)
    detector = GradCon(epochs=1, random_state=0).fit(X)
    wanted = detector.anomaly_score(X)
    X = X[X.columns[::-1]]
    with pytest.raises(ValueError, match="in the same order") as caught:
        detector.anomaly_score(X)
    given = {"X": X, "detector": detector}
    exec(str(caught.value).rpartition(": ")[2], given)
    np.testing.assert_array_equal(detector.anomaly_score(given["X"]), wanted)


@pytest.mark.parametrize(
    "names", [["a", 0, 1], [0.5, 1.5, 2.5], [10, 20, 30], [1, 2, 3], [("a", "x"), ("a", "y"), ("b", "x")]]
)
def test_names_that_are_no_text_are_checked_as_text(names):
    frame = pd.DataFrame([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0]])
    frame.columns = pd.MultiIndex.from_tuples(names) if isinstance(names[0], tuple) else names
    table = Table().fit(frame)
    assert table.names_in == [str(name) for name in names]
    other = frame.iloc[:, ::-1]
    with pytest.raises(ValueError, match="in the same order") as caught:
        table.transform(other)
    given = {"X": other.copy()}
    exec(str(caught.value).partition("Give the columns of the fit: ")[2], given)
    np.testing.assert_array_equal(table.transform(given["X"]), table.transform(frame))


@pytest.mark.parametrize("labels", [[1, 0, 2], [1, 2, 3]])
@pytest.mark.parametrize("fitted", [pd.DataFrame(np.eye(3)), np.eye(3)])
def test_numbered_columns_in_another_order_are_refused(fitted, labels):
    table = Table().fit(fitted)
    frame = pd.DataFrame(np.eye(3), columns=labels)
    with pytest.raises(ValueError, match=r"are numbered .*, but those of the fit were 0 to 2: .*to_numpy"):
        table.transform(frame)
    np.testing.assert_array_equal(table.transform(frame.to_numpy()), np.eye(3))


def test_arrays_after_frames_and_frames_after_arrays():
    frame = pd.DataFrame({"a": [0.0, 2.0], "b": [0.0, 4.0]})
    assert Table().fit(frame).transform([[1.0, 1.0]]).tolist() == [[0.5, 0.25]]
    assert Table().fit(frame.to_numpy()).transform(frame).tolist() == [[0, 0], [1, 1]]
    unnamed = Table().fit(pd.DataFrame([[0.0, 0.0], [2.0, 4.0]]))
    assert unnamed.names_in is None
    assert unnamed.names_out == ["0", "1"]
    with pytest.raises(ValueError, match="X has 3 features, but Table is expecting 2 features as input"):
        Table().fit(frame).transform(np.zeros((1, 3)))


def test_kinds_are_checked():
    table = Table().fit(pd.DataFrame({"a": [0.0, 1.0], "b": ["x", "y"]}))
    with pytest.raises(
        ValueError, match=r"'a' held numbers in fit, but holds categories now; .*astype\(float\)"
    ):
        table.transform(pd.DataFrame({"a": ["0"], "b": ["x"]}))
    with pytest.raises(
        ValueError, match=r"'b' held categories in fit, but holds numbers now; .*astype\(str\)"
    ):
        table.transform(np.zeros((1, 2)))


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
@pytest.mark.parametrize("cells", [[1, 0, 1], [1.0, 0.0, 1.0], ["1", "0", "1"], ["true", "FALSE", "1.0"]])
def test_yes_and_no_are_the_same_however_they_are_written(cells, library):
    fitted = {"a": [0.0, 1.0, 2.0], "b": [True, False, True]}
    table = Table(missing="impute").fit(library(fitted))
    np.testing.assert_array_equal(
        table.transform(library({**fitted, "b": cells})), table.transform(library(fitted))
    )
    none = table.transform(library({"a": [0.0, 0.0], "b": [cells[0], None]}))
    assert none[:, -2:].tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="'b' held categories in fit, but holds numbers now"):
        table.transform(library({**fitted, "b": [0, 1, 2]}))


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
def test_numbers_are_the_digits_that_were_categories(library):
    table = Table(missing="impute").fit(library({"b": ["1", "2", "3+", "-1"]}))
    encoded = table.transform(library({"b": [2, -1, 7, None]}))
    assert encoded.argmax(1).tolist() == [2, 0, 4, 4]
    np.testing.assert_array_equal(table.transform(library({"b": [2.0, -1.0]})), encoded[:2])
    for codes in (["01", "2"], ["1.0", "2"], ["nan", "a"]):  # of which nobody knows which 1 means
        with pytest.raises(ValueError, match="held categories in fit, but holds numbers now"):
            Table().fit(library({"b": codes})).transform(library({"b": [1, 2]}))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((0, 2)), "0 sample"),
        (np.zeros((2, 0)), "0 feature"),
        (pd.DataFrame({"a": []}), "0 sample"),
        (pl.DataFrame({"a": []}), "0 sample"),
        (pa.table({"a": []}), "0 sample"),
        (np.zeros(3), "Reshape your data"),
        (np.array([["a", "b"]]), r"holds text; .*pandas.DataFrame\(X\)"),
        (np.array([["a", 1.0]], dtype=object), r"holds text; .*pandas.DataFrame\(X\)"),
        (np.zeros((1, 2), dtype=complex), "Complex data not supported"),
        (np.array([["2024-01-01", "NaT"]], dtype="M8[s]"), r"dates or times \(datetime64\[s\]\)"),
    ],
)
def test_unusable_tables(X, message):
    with pytest.raises(ValueError, match=message):
        Table().fit(X)


def test_no_row_to_transform_and_no_fit():
    with pytest.raises(ValueError, match="0 sample"):
        Table().fit([[1.0]]).transform(np.zeros((0, 1)))
    with pytest.raises(NotFittedError, match=r"call fit\(X\) first"):
        Table().transform([[1.0]])
    with pytest.raises(ValueError, match="'drop' was given; 'refuse' or 'impute'"):
        Table(missing="drop")


def test_a_row_has_one_encoding_in_any_batch():
    table = Table().fit(WIDE)
    whole = table.transform(WIDE)
    for i in range(len(WIDE)):
        np.testing.assert_array_equal(table.transform(WIDE.iloc[[i]])[0], whole[i])


@pytest.mark.parametrize(
    "frame", [WIDE, WIDE[["amount", "n"]], WIDE[["city"]]], ids=["mixed", "numbers", "categories"]
)
def test_stored_tables_encode_alike(frame):
    table = Table(missing="impute").fit(frame)
    again = Table.from_skops(table.to_skops())
    np.testing.assert_array_equal(again.transform(frame), table.transform(frame))
    assert again.state() == json.loads(json.dumps(table.state())) == table.state()
    with pytest.raises(ValueError, match="feature names"):
        again.transform(frame.rename(columns=str.upper))


def skops_file(schema: object, compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("schema.json", schema if isinstance(schema, str) else json.dumps(schema))
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "kind", [Fraction(1, 2), np.add, OrdinalEncoder(), IsolationForest(), functools.partial(int)]
)
def test_types_that_no_table_holds_are_refused(kind):
    with pytest.raises(ValueError, match=r"no use for: .*; it was not loaded"):
        Table.from_skops(skops.io.dumps({"state": kind}))


def test_damaged_tables_are_refused():
    whole = Table().fit(WIDE).to_skops()
    node = {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode"}
    bomb = skops_file({**node, "content": {}}, zipfile.ZIP_DEFLATED, bomb=bytes(10**7))
    nested = skops_file("[" * 200_000 + "]" * 200_000)
    for content in (b"nothing", whole[:-30], whole[100:], skops_file({}), skops_file([1]), bomb, nested):
        with pytest.raises(ValueError, match=r"is no table of anograd"):
            Table.from_skops(content)
    with pytest.raises(ValueError, match=r"unpack to 10,\d+,\d+"):
        Table.from_skops(bomb)


@pytest.mark.parametrize(
    "change",
    [
        {"low": np.zeros(7)}, {"half": np.zeros((1, 1))}, {"keys": {}}, {"keys": {"a": {}}},
        {"encoder": None}, {"encoder": OneHotEncoder(dtype=np.float32)}, {"state": {}}, {"state": None},
        {"extra": 1}, {"median": "abc"},
    ],
    ids=str,
)  # fmt: skip
def test_tables_whose_parts_do_not_fit_together_are_refused(change):
    parts = skops.io.loads(Table().fit(WIDE).to_skops())
    with pytest.raises(ValueError, match="is no table of anograd"):
        Table.from_skops(skops.io.dumps({**parts, **change}))


@pytest.mark.parametrize(
    "change", [{"constant": [9]}, {"gaps": [0]}, {"constant": [[0]]}, {"gaps": 3}], ids=str
)
def test_columns_that_are_constant_or_lack_cells_must_be_there(change):
    parts = skops.io.loads(Table().fit(WIDE).to_skops())
    parts["state"] |= change
    with pytest.raises(ValueError, match="is no table of anograd"):
        Table.from_skops(skops.io.dumps(parts))


def test_levels_of_digits_are_those_of_a_csv_that_pandas_wrote():
    """Where a cell is empty pandas makes floats of whole numbers, and writes 7 as 7.0."""
    codes = pd.Series([7.0, 8.0, np.nan, 7.0, 8.0, 9.0] * 10).astype("category")
    fitted = pd.DataFrame({"code": codes, "x": np.arange(60.0) % 7})
    table = Table(missing="impute").fit(fitted)
    texts = pl.DataFrame({"code": [None if c != c else str(c) for c in codes.tolist()], "x": fitted["x"]})
    assert texts["code"][0] == "7.0"
    np.testing.assert_array_equal(table.transform(texts), table.transform(fitted))
    np.testing.assert_array_equal(table.transform(texts.with_columns(code=pl.lit("7.5")))[:, 3], 1)


def test_no_row_of_a_table_with_categories_can_be_encoded():
    table = Table().fit(WIDE)
    encoded, kept, why = table.sound(WIDE.assign(amount=np.nan))
    assert encoded.shape == (0, len(table.names_out))
    assert len(kept) == 0
    assert set(why) == {0, 1, 2}


def test_a_category_without_a_value_in_the_fit_takes_whatever_comes():
    empty = pl.DataFrame({"a": pl.Series([None] * 20, dtype=pl.String), "x": np.arange(20.0)})
    table = Table(missing="impute").fit(empty)
    for cells in (["u"] * 20, [7.5] * 20, [1] * 20, [True] * 20):
        np.testing.assert_array_equal(table.transform(empty.with_columns(a=pl.Series(cells)))[:, 0], 1)


@pytest.mark.parametrize(
    "dates",
    [
        ["2026-11-30", "2026-12-01 10:00"], ["30.11.2026", "1/12/2026"], ["11/30/26", "1/2/26"],
        ["30-Nov-2026", "1 december 26"], ["2026/11/30", "30-11-2026"], ["10:05", "9:30:00"],
    ],
)  # fmt: skip
def test_dates_as_text_are_told(dates):
    days = dates * 10 + ["-"]  # one cell that is none
    frame = pl.DataFrame({"day": days, "x": np.arange(21.0) % 7})
    with pytest.warns(UserWarning, match="column 'day' holds dates or times as text, such as"):
        assert len(Table().fit(frame).names_out) == 5


@pytest.mark.parametrize(
    "codes", [["10-4711", "20-4712"], ["1.2", "1.3.4"], ["a 10:05", "b"], ["2026", "2027"]]
)
def test_codes_are_no_dates(codes):
    frame = pl.DataFrame({"code": pl.Series(codes * 10, dtype=pl.String), "x": np.arange(20.0) % 7})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Table().fit(frame)


@pytest.mark.parametrize("cell", ["x", "#N/A!", "12 or so"])
def test_one_cell_that_is_no_number_does_not_make_categories_of_numbers(cell):
    def fitted(cells):
        frame = pl.DataFrame({"n": [*map(str, cells), cell], "x": np.arange(len(cells) + 1.0) % 7})
        return len(Table().fit(frame).names_out)

    said = rf"column 'n' holds numbers but for 1 of 51 cells, '{cell}' first"
    with pytest.raises(ValueError, match=rf"{said}: write a number there, or leave the cell empty"):
        fitted(np.arange(50) / 4)
    with pytest.warns(UserWarning, match=rf"{said}; they are taken for 11 categories.* If they are amounts"):
        assert fitted(np.arange(50) % 10) == 13  # whole numbers may be codes


def test_words_for_an_empty_cell_among_numbers_are_named():
    frame = pl.DataFrame({"n": [*map(str, range(50)), "#N/A"], "x": np.arange(51.0) % 7})
    with pytest.raises(ValueError, match="column 'n' holds numbers and '#N/A', which seems to stand for an"):
        Table().fit(frame)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_an_index_among_the_columns_is_told(name):
    frame = pl.DataFrame({name: np.random.default_rng(0).permutation(500)[:40], "x": np.arange(40.0) % 7})
    with pytest.warns(UserWarning, match=f"column '{name}' is called like the index of a frame"):
        Table().fit(frame)


def test_a_cell_that_is_no_number_is_named():
    table = Table().fit(pd.DataFrame({"a": [0.0, 1.0]}))
    with pytest.raises(ValueError, match=r"holds categories now: 2 of 4 cells are no numbers, 'n/a' first"):
        table.transform(pl.DataFrame({"a": ["0.5", "n/a", None, "1", "-"]}))


def test_a_dictionary_of_arrow_in_pandas_is_a_category():
    kind = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
    table = Table().fit(pd.DataFrame({"c": pd.array(["a", "b", "a"], dtype=kind)}))
    assert table.kinds() == ["category"]
    assert table.transform(pd.DataFrame({"c": ["b"]})).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
    ("frame", "line"),
    [(pl.DataFrame({"c": [[1], [2]]}), "X = X.drop('c')"), (pa.table({"c": [[1]]}), "X.drop_columns('c')")],
)
def test_the_line_to_change_is_in_the_frames_own_language(frame, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        Table().fit(frame)


@pytest.mark.parametrize("cell", ["x", "#N/A"])
def test_a_bad_cell_of_a_row_that_is_not_learned_from_makes_no_categories_of_numbers_either(cell):
    """As one of a known anomaly, or of a row held out for p values: the whole column is of texts then."""
    cells = [f"{i / 4}" for i in range(50)] * 2
    cells[7] = cell
    frame = pl.DataFrame({"n": cells, "x": np.arange(100.0) % 7})
    normal = np.arange(100) != 7
    with pytest.raises(ValueError, match=rf"column 'n' holds numbers .*'{cell}'"):
        Table().fit(frame, normal)
