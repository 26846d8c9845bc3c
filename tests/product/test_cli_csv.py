"""CSV as people and other programs write it: every command reads the same, or says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import polars as pl
import pytest
from tests.product.conftest import fails, run, works

import anograd as ag

pytestmark = pytest.mark.usefixtures("one_thread")

FIT = ("--detector", "graddensity", "--epochs", 1, "--missing", "impute")
NAME = 'height ""in""'  # a quote within quotes is doubled


def written(path: Path, number: str, empty: str) -> Path:
    """Write rows whose ages are few and whole, so that as texts they would make categories."""
    draw = np.random.default_rng(0)
    ages, heights = draw.integers(20, 30, 80), draw.normal(170, 9, 80).round(1)
    cells = [empty if i % 9 == 4 else number.format(age) for i, age in enumerate(ages)]
    lines = [
        f"{age},{height},{'ab'[i % 2]}" for i, (age, height) in enumerate(zip(cells, heights, strict=True))
    ]
    path.write_text("\n".join([f'age,"{NAME}",kind', *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A folder with rows as they should be written, and a model of them."""
    folder = tmp_path_factory.mktemp("plain")
    works("fit", written(folder / "x.csv", "{}", ""), "-o", folder / "m", *FIT)
    works("score", folder / "m", folder / "x.csv", "-o", folder / "s.csv")
    return folder


@pytest.mark.parametrize(("number", "empty"), [(" {} ", " "), ("+{}", ""), ('"{}"', '""'), ("{}", "nan")])
def test_numbers_are_numbers_however_they_are_written(plain, tmp_path, number, empty):
    data, scores = written(tmp_path / "x.csv", number, empty), pl.read_csv(plain / "s.csv")
    works("fit", data, "-o", tmp_path / "m", *FIT)
    works("score", tmp_path / "m", plain / "x.csv", "-o", tmp_path / "s.csv")
    assert pl.read_csv(tmp_path / "s.csv").equals(scores)
    works("score", plain / "m", data, "-o", tmp_path / "s.csv")
    assert pl.read_csv(tmp_path / "s.csv").equals(scores)
    works("explain", plain / "m", data, "-o", tmp_path / "why.json", "--rows", "0,4")
    found = json.loads((tmp_path / "why.json").read_text())
    np.testing.assert_allclose([one["score"] for one in found], scores["score"][[0, 4]].to_numpy(), rtol=1e-9)


def test_a_file_without_names_is_told_of(plain, tmp_path):
    rows = np.random.default_rng(1).normal(size=(60, 3)).round(6)
    rows[0] = 5.1, 3.5, 1.4
    np.savetxt(tmp_path / "x.csv", rows, delimiter=",", fmt="%.6g")
    said = works("fit", tmp_path / "x.csv", "-o", tmp_path / "m", *FIT).stderr
    assert said.startswith(
        f"warning: '{tmp_path}/x.csv' has numbers for names, '5.1' first: if its first line is"
    )
    assert said.count("has numbers for names") == 1
    np.savetxt(tmp_path / "x.csv", rows, delimiter=",", fmt="%.6g", header="400,400.5,401", comments="")
    said = works("fit", tmp_path / "x.csv", "-o", tmp_path / "m", "--force", *FIT).stderr
    assert "has numbers for names" not in said
    (tmp_path / "x.csv").write_text("0,tcp,0\n1,udp,0\n")
    line = fails("fit", tmp_path / "x.csv", "-o", tmp_path / "n", *FIT)
    assert "named '0'; rename one of them, or write a line of names before the first row" in line


@pytest.mark.parametrize("name", ["x[1].csv", "x*.csv"])
def test_a_name_with_brackets_or_a_star_is_that_of_one_file(plain, tmp_path, name):
    (tmp_path / name).write_text((plain / "x.csv").read_text())
    (tmp_path / "x1.csv").write_text("age,kind\n" + "1,a\n" * 60)
    works("fit", tmp_path / name, "-o", tmp_path / "m", *FIT)
    works("score", tmp_path / "m", tmp_path / name, "-o", tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == (plain / "s.csv").read_text()


def test_a_quote_in_a_name_is_one_quote(plain):
    model, data = plain / "m", plain / "x.csv"
    assert list(ag.load(model).feature_names_in_) == ["age", 'height "in"', "kind"]
    frame = pandas.read_csv(data)
    scores = pl.read_csv(plain / "s.csv")["score"].to_numpy()
    np.testing.assert_allclose(ag.load(model).anomaly_score(frame), scores, rtol=1e-9)


@pytest.mark.parametrize("short", ["7", "7,1.5"])
def test_a_line_of_too_few_cells_is_refused_and_not_filled_up(plain, tmp_path, short):
    """An empty cell may be filled by the median, a line that was cut short may not."""
    lines = (plain / "x.csv").read_text().splitlines()
    lines[12] = '" 22\n",170,'  # a row on two lines, whose last cell is empty
    lines[13] = short
    data = tmp_path / "x.csv"
    data.write_text("\n".join(lines) + "\n")
    given = "2 cells" if "," in short else "1 cell"
    for command in (("fit", data, "-o", tmp_path / "m", *FIT), ("explain", plain / "m", data)):
        line = fails(*command)
        assert f"row 12 of '{data}', counted from 0, has {given}, 3 are wanted (it is {short})" in line
    assert f"{given}, 3 are wanted" in fails("score", plain / "m", data, "-o", tmp_path / "s.csv")


@pytest.mark.parametrize("end", [b"\n", b"\r\n\r\n", b"\n\n\n"])
def test_empty_lines_at_the_end_are_nothing_and_elsewhere_called_so(plain, tmp_path, end):
    data, content = tmp_path / "x.csv", (plain / "x.csv").read_bytes()
    data.write_bytes(content + end)
    works("score", plain / "m", data, "-o", tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_bytes() == (plain / "s.csv").read_bytes()
    works("fit", data, "-o", tmp_path / "m", *FIT)
    assert sum(ag.load(tmp_path / "m").split_.values()) == 80
    data.write_bytes(content + end + content.splitlines()[3])
    for command in (
        ("fit", data, "-o", tmp_path / "n", *FIT),
        ("score", plain / "m", data, "-o", tmp_path / "t.csv"),
    ):
        line = fails(*command)
        assert "row 80 of" in line
        assert "an empty line" in line


def test_integers_of_any_length_are_numbers(tmp_path):
    numbers = [2**63 + 1025 * i * i for i in range(60)]
    (tmp_path / "x.csv").write_text(
        "id,size\n" + "".join(f"{one},{i % 7}.5\n" for i, one in enumerate(numbers))
    )
    works("fit", tmp_path / "x.csv", "-o", tmp_path / "m", *FIT)
    works("score", tmp_path / "m", tmp_path / "x.csv", "-o", tmp_path / "s.csv")
    works("explain", tmp_path / "m", tmp_path / "x.csv", "-o", tmp_path / "why.json", "--rows", "0")
    score = json.loads((tmp_path / "why.json").read_text())[0]["score"]
    assert score == pytest.approx(pl.read_csv(tmp_path / "s.csv")["score"][0], rel=1e-9)


def test_columns_in_another_order_are_told_of_with_the_line_that_mends_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pl.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), schema=["a", "b", "c"])
    ag.GradDensity(epochs=1, random_state=0).fit(frame).save("m")
    turned = frame.select("c", pl.lit(1).alias("odd"), "b", "a")
    turned.write_csv("x.csv")
    turned.write_parquet("x.parquet")
    for ending in ("csv", "parquet"):
        for command in (("score", "m", f"x.{ending}", "-o", "s.csv"), ("explain", "m", f"x.{ending}")):
            line = fails(*command)
            assert f"'x.{ending}' has the columns of the fit in another order" in line
        mend = line.rpartition("Write them so: ")[2].replace("MODEL", "m").replace("FILE", f"x.{ending}")
        exec(mend, {"polars": pl, "anograd": ag})
        works("score", "m", f"ordered.{ending}", "-o", "s.csv", "--label", "odd")
        scores = pl.read_csv("s.csv")["score"].to_numpy()
        np.testing.assert_allclose(scores, ag.load("m").anomaly_score(frame), rtol=1e-9)


def test_a_column_of_integers_that_are_too_long_can_be_dropped(tmp_path):
    lines = "".join(f"{10**41 + 7 * i},{i % 7}.5\n" for i in range(60))
    (tmp_path / "x.csv").write_text("id,size\n" + lines)
    works("fit", tmp_path / "x.csv", "--drop", "id", "-o", tmp_path / "m", *FIT)
    works("explain", tmp_path / "m", tmp_path / "x.csv", "--rows", "0")


def test_a_column_that_was_empty_in_the_fit(tmp_path):
    (tmp_path / "x.csv").write_text("size,note\n" + "".join(f"{i % 7}.5,\n" for i in range(60)))
    works("fit", tmp_path / "x.csv", "-o", tmp_path / "m", *FIT)
    works("score", tmp_path / "m", tmp_path / "x.csv", "-o", tmp_path / "s.csv")
    works("export", tmp_path / "m", "-o", tmp_path / "m.onnx")


def test_a_file_of_rejects_alone(tmp_path):
    rows = "".join(f"{i % 7}.5,{'uv'[i % 2]}\n" for i in range(60))
    (tmp_path / "x.csv").write_text("size,kind\n" + rows)
    works("fit", tmp_path / "x.csv", "-o", tmp_path / "m", *FIT[:4])
    (tmp_path / "bad.csv").write_text("size,kind\n,u\n,v\n")
    said = works(
        "score",
        tmp_path / "m",
        tmp_path / "bad.csv",
        "-o",
        tmp_path / "s.csv",
        "--rejects",
        tmp_path / "r.csv",
    )
    assert "2 rows, 2 of them rejected" in said.output


def test_an_empty_cell_is_null_in_a_file_of_reasons(plain, tmp_path):
    data = tmp_path / "x.csv"
    data.write_text(f'age,"{NAME}",kind\n,170,a\n21,,b\n')
    works("explain", plain / "m", data, "-o", tmp_path / "why.json")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    given = [
        feature["given"]
        for row in json.loads((tmp_path / "why.json").read_text(), parse_constant=refuse)
        for feature in row["features"]
    ]
    assert given.count(None) == 2


def test_a_boolean_is_spelt_as_what_is_expected_of_it(tmp_path):
    rows = "".join(f"{i % 7}.5,{'true' if i % 9 else 'false'}\n" for i in range(90))
    (tmp_path / "x.csv").write_text("size,paid\n" + rows)
    works("fit", tmp_path / "x.csv", "-o", tmp_path / "m", *FIT)
    works("explain", tmp_path / "m", tmp_path / "x.csv", "--rows", "0", "-o", tmp_path / "why.json")
    (_, paid) = json.loads((tmp_path / "why.json").read_text())[0]["features"]
    assert paid["given"] == "False"
    assert paid["expected"] in ("True", "False")


def test_a_semicolon_file_with_a_comma_in_a_name_is_told_of(tmp_path):
    draw = np.random.default_rng(0)
    rows = [f"{price // 100},{price % 100:02d};{n}" for price, n in draw.integers(100, 900, (80, 2))]
    (tmp_path / "x.csv").write_text("\n".join(["Preis, EUR;Menge", *rows]) + "\n")
    (tmp_path / "quoted.csv").write_text(
        "\n".join(['a,"b; in EUR"', *(row.replace(";", ".") for row in rows)])
    )
    said = "has ';' within the names of its columns; if that is what stands between them: polars.read_csv"
    assert said in run("fit", tmp_path / "x.csv", "-o", tmp_path / "m", *FIT).stderr
    assert said not in works("fit", tmp_path / "quoted.csv", "-o", tmp_path / "m2", *FIT).stderr


def test_parquet_files_are_those_of_the_folder_as_it_is_called(tmp_path):
    """A pattern has * and ?; brackets are part of a name."""
    rows = pl.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), schema=["a ", "a"])
    for name, count in (("day[1]", 30), ("day1", 60)):
        (tmp_path / name).mkdir()
        rows[:count].write_parquet(tmp_path / name / "x.parquet")
    works("fit", tmp_path / "day1", "-o", tmp_path / "m", *FIT)
    works("score", tmp_path / "m", f"{tmp_path}/day[1]/*.parquet", "-o", tmp_path / "s.csv")
    assert len(pl.read_csv(tmp_path / "s.csv")) == 30
    assert "table of 2 columns, encoded as 2 numbers: 'a ', a" in works("info", tmp_path / "m").stdout
