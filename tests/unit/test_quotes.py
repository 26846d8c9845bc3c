"""Rows of a CSV that are none for their quotes are named, and digits of other scripts are text."""

from __future__ import annotations

import io

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anograd import data
from anograd.quotes import check_quotes, whole_rows

HEAD = "amount,shop,vip\n" + "1.5,a,true\n" * 20
TAIL = "2.5,b,false\n" * 20


@pytest.mark.parametrize("line", ['1,a"b,true', '1,"b,true', '1,"b"c,true'])
def test_a_misplaced_quote_is_found(line, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f"{HEAD}{line}\n{TAIL}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"row 20 of '.*x\.csv', counted from 0.*a quote out of place"):
        data.read(path)


def test_a_misplaced_quote_is_found_in_a_pipe(monkeypatch):
    class Piped:
        buffer = io.BytesIO(f'{HEAD}1,"b,true\n{TAIL}'.encode())

        def isatty(self):
            return False

    monkeypatch.setattr("sys.stdin", Piped())
    with pytest.raises(ValueError, match=r'row 20 of stdin.*it is 1,"b,true'):
        data.read("-")


@pytest.mark.parametrize("line", ['1,"a\nb",true', '1,"a ""b"" c",true', '"1","a","true"'])
def test_rows_whose_quotes_are_right(line):
    check_quotes(f"{HEAD}{line}\n{TAIL}".encode(), "x")


def test_two_stray_quotes_take_no_rows_between_them():
    lines = [b"1,a,true\n", b'"2,b,true\n', *[b"3,c,false\n"] * 50, b'"4,d,true\n', b'5,"e\nf",true\n']
    block = b"".join(lines)
    assert whole_rows(block, ended=True) == (len(block), lines)


def test_digits_of_other_scripts_are_text(tmp_path):
    path, wide = tmp_path / "x.csv", "\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT TWO}"
    path.write_text("amount,shop\n" + "1.5,7\n" * 50 + f"2.5,{wide}\n" * 50, encoding="utf-8")
    frame = data.read(path)
    assert frame["shop"].unique(maintain_order=True).to_list() == ["7", wide]
    assert frame.schema["amount"] == pl.Float64


def test_two_columns_of_one_name_are_no_damage(tmp_path):
    pq.write_table(pa.table([[1, 2], [3, 4]], names=["a", "a"]), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet' has two columns of one name"):
        data.read(tmp_path / "x.parquet")
