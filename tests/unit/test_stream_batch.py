"""The batch function: tables of three libraries, cut anywhere, give the same scores."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from torch import nn

from anograd import R2AD2, GradCon, Target
from anograd.stream import score_batch

DRAW = np.random.default_rng(0)
FRAME = pl.DataFrame(
    {
        "size": DRAW.normal(size=700),
        "maker": DRAW.choice(["abel", "beta"], 700),
        "id": [f"r{i}" for i in range(700)],
        "weight": DRAW.normal(size=700).astype(np.float32),
    }
)


@pytest.fixture(scope="module", params=[GradCon, R2AD2])
def detector(request):
    return request.param(epochs=2, random_state=0).fit(FRAME.drop("id"))


@pytest.mark.parametrize("of", ["polars", "pandas", "pyarrow"])
def test_a_table_of_each_library_gives_one_of_its_own(detector, of):
    table = {"polars": FRAME.clone, "pandas": FRAME.to_pandas, "pyarrow": FRAME.to_arrow}[of]()
    found = score_batch(detector, table, alpha=0.2, row="id")
    assert type(found) is type(table)
    frame = pl.DataFrame(found) if of != "pyarrow" else pl.from_arrow(found)
    assert frame.columns == ["row", "score", "p_value", "anomaly"]
    assert frame["row"].to_list() == FRAME["id"].to_list()
    X = FRAME.drop("id")
    np.testing.assert_array_equal(frame["score"], detector.anomaly_score(X))
    np.testing.assert_array_equal(frame["p_value"], detector.p_values(X))
    np.testing.assert_array_equal(frame["anomaly"], detector.detect(X, alpha=0.2))


@pytest.mark.parametrize("size", [1, 7, 512, 699])
def test_batches_of_any_size_fit_together(detector, size):
    rows = FRAME.head(100) if size == 1 else FRAME
    whole = score_batch(detector, rows)
    parts = [score_batch(detector, rows.slice(i, size), first=i) for i in range(0, len(rows), size)]
    found = pl.concat(parts)
    assert found["row"].to_list() == list(range(len(rows)))
    np.testing.assert_allclose(found["score"], whole["score"], rtol=1e-5)


def test_no_rows_give_no_rows(detector):
    found = score_batch(detector, FRAME.head(0))
    assert found.schema == score_batch(detector, FRAME.head(1)).schema
    assert len(found) == 0


def test_rows_of_a_pandas_frame_keep_their_order(detector):
    frame = FRAME.to_pandas().iloc[::-1]
    found = score_batch(detector, frame, row="id")
    assert found["row"].tolist() == FRAME["id"].to_list()[::-1]


def test_what_is_no_table_is_refused(detector):
    with pytest.raises(TypeError, match=r"a list was given; a pyarrow.Table, a polars or a pandas DataFrame"):
        score_batch(detector, [[1.0, 2.0]])
    with pytest.raises(ValueError, match="no column 'number' to tell rows apart, it has size, maker"):
        score_batch(detector, FRAME, row="number")
    with pytest.raises(ValueError, match="seen at fit time, yet now missing"):
        score_batch(detector, FRAME.drop("maker"))


def test_a_network_that_was_trained_on_is_refused():
    frame, net = FRAME.select("size", "weight"), nn.Linear(2, 2)
    detector = GradCon(target=Target.adopt(net), random_state=0).fit(frame)
    np.testing.assert_array_equal(
        score_batch(detector, frame.head(9))["score"], detector.anomaly_score(frame)[:9]
    )
    nn.init.zeros_(net.weight)
    with pytest.raises(ValueError, match="has other weights than when this detector was fitted"):
        score_batch(detector, frame)


def test_rows_of_any_width_are_scored_some_at_once():
    class Rows:
        shape = (40,)

    detector = GradCon()
    detector.encoder_ = Rows()
    for shape, size in [((40,), 2048), ((3,), 2048), ((100,), 1024), ((28 * 28,), 512)]:
        detector.encoder_.shape = shape
        assert detector._at_once() == size
    for shape, size in [((3, 32, 32), 512), ((3, 96, 96), 64), ((1, 300, 500), 8), ((3, 2000, 2000), 1)]:
        detector.encoder_.shape = shape  # large pictures take much memory, and a single one is waited for
        assert detector._at_once() == size
