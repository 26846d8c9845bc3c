"""Parquet in pieces: the rows of all files in order, from any row on, whatever their row groups."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anograd.stream import pieces
from anograd.stream.pieces import Parts, Place


@pytest.fixture(autouse=True, scope="module")
def small_pieces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "FEWEST", 4)
        patch.setattr(pieces, "MOST", 4)
        patch.setattr(pieces, "READ", 3)
        yield


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    group=st.integers(1, 50),
    share=st.floats(0, 1),
)
def test_the_rows_of_all_files_from_any_row_on(sizes, group, share):
    n = sum(sizes)
    rows = pl.DataFrame({"a": range(n), "left out": [0] * n, "b": [-i for i in range(n)]})
    begin = round(share * n)
    with TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i}.parquet") for i in range(len(sizes))]
        for i, path in enumerate(paths):
            rows.slice(sum(sizes[:i]), sizes[i]).write_parquet(path, row_group_size=group)
        found = list(Parts("rows", paths, ["a", "b"]).pieces(Place(begin)))
    numbers = [number for piece in found for number in range(piece.first, piece.first + piece.count)]
    assert numbers == list(range(begin, n))
    for piece in found:
        assert 0 < piece.count <= 4
        assert piece.X.equals(rows.select("a", "b").slice(piece.first, piece.count))
        assert piece.after == Place(piece.first + piece.count)
