"""What the service says to bad input: one JSON problem with a status below 500, never a traceback."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.product.conftest import bytes_of, npy, parquet, png, problem, served

from anograd import serve
from anograd.serve.limits import Limits
from anograd.serve.unpack import unpack

pytestmark = pytest.mark.usefixtures("one_thread")

BODIES = {
    "no JSON": (b"rows", 400, "the body is not JSON"),
    "empty": (b"", 400, "the body is not JSON"),
    "not UTF-8": (b'{"rows": ["\xff"]}', 400, "the body is not JSON"),
    "deep lists": (b"[" * 90_000, 400, "nested too deeply"),
    "deep objects": (b'{"a":' * 19_000, 400, "nested too deeply"),
    "NaN": (b'{"rows": [[NaN, "abel"]]}', 400, "NaN is no JSON; finite numbers are wanted"),
    "infinity": (b'{"rows": [[-Infinity, "abel"]]}', 400, "-Infinity is no JSON"),
    "infinite after all": (
        b'{"rows": [[1e999, "abel"]]}',
        400,
        "X holds infinity at row 0, column 0 ('size')",
    ),
    "10,000 digits": (b'{"rows": [[%s, "abel"]]}' % (b"9" * 10_000), 400, "a whole number above 1e308"),
    "half a letter": (
        b'{"rows": [[1.0, "abel"], [1.0, "\\ud800"]]}',
        400,
        "'maker' holds '\\ud800' at row 1; that is no text",
    ),
    "1,000 digits": (b'{"rows": [[%s, "abel"]]}' % (b"9" * 1_000), 400, "a whole number above 1e308"),
    "a list": (b"[[1, 2]]", 422, "wanted is an object with a list of rows"),
    "no rows": (b'{"row": []}', 422, "wanted is an object with a list of rows"),
    "rows a number": (b'{"rows": 3}', 422, "wanted is an object with a list of rows"),
    "zero rows": (b'{"rows": []}', 400, "at least one row is wanted"),
    "61 rows": (json.dumps({"rows": [[1, "abel"]] * 61}).encode(), 413, "61 rows were given; at most 60"),
    "unknown key": (b'{"rows": [[1, "abel"]], "alhpa": 1}', 422, "'alhpa' is not known"),
    "row a number": (b'{"rows": [1]}', 422, "row 0, counted from 0, is no list"),
    "short row": (
        b'{"rows": [[1, "abel"], [1]]}',
        422,
        "row 1, counted from 0, is 1 cell; wanted is a list of 2",
    ),
    "a cell is a list": (b'{"rows": [[[1], "abel"]]}', 422, "column 'size' holds lists or objects"),
    "words": (
        b'{"rows": [["1.5", "abel"]]}',
        400,
        "column 'size' held numbers in fit, but holds categories now",
    ),
    "numbers": (b'{"rows": [[1.5, 2]]}', 400, "column 'maker' held categories in fit, but holds numbers now"),
    "mixed": (b'{"rows": [[1, "abel"], ["x", "abel"]]}', 400, "column 'size' holds numbers and texts"),
    "empty cell": (b'{"rows": [[null, "abel"]]}', 400, "X holds NaN at row 0, column 0 ('size')"),
    "missing column": (b'{"rows": [{"size": 1}]}', 400, "yet now missing: - maker"),
    "other column": (b'{"rows": [{"size": 1, "make": "x"}]}', 400, "unseen at fit time: - make"),
    "no cells": (b'{"rows": [{}]}', 400, "yet now missing: - maker - size"),
    "a cell twice": (b'{"rows": [{"size": 1, "maker": "x", "size": 2}]}', 400, "'size' stands twice"),
    "a rule twice": (b'{"rows": [[1, "x"]], "alpha": 0.1, "alpha": 0.2}', 400, "'alpha' stands twice"),
    "unlike objects": (
        b'{"rows": [{"size": 1, "maker": "x"}, {"size": 1}]}',
        422,
        "differ in the column 'maker'",
    ),
    "object, then list": (
        b'{"rows": [{"size": 1, "maker": "x"}, [1, "x"]]}',
        422,
        "row 1, counted from 0, is no object",
    ),
    "1,500 columns": (
        json.dumps({"rows": [dict.fromkeys(map(str, range(1500)))]}).encode(),
        422,
        "1,500 columns",
    ),
    "two rules": (
        b'{"rows": [[1, "abel"]], "alpha": 0.1, "fdr": 0.1}',
        400,
        "one of alpha, fdr, budget and costs is wanted",
    ),
    "alpha of 5": (
        b'{"rows": [[1, "abel"]], "alpha": 5}',
        400,
        "a rate between 0 and 1 is wanted: alpha=0.05",
    ),
    "alpha a text": (b'{"rows": [[1, "abel"]], "alpha": "x"}', 422, "alpha is a number"),
    "alpha true": (b'{"rows": [[1, "abel"]], "alpha": true}', 422, "alpha is a number"),
    "half a budget": (b'{"rows": [[1, "abel"]], "budget": 0.5}', 400, "a number of rows is wanted"),
    "huge fdr": (b'{"rows": [[1, "abel"]], "fdr": 1e999}', 400, "a rate between 0 and 1 is wanted"),
}


@pytest.mark.parametrize("path", ["/score", "/explain"])
@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies(client, name, path):
    body, status, said = BODIES[name]
    answer = client.post(path, content=body)
    assert answer.status_code == status, answer.text
    assert said in problem(answer)


def test_bad_nests_of_pixels(image_client):
    row = np.zeros((8, 8), int).tolist()
    ragged = [*row[:7], row[7][:7]]
    texts = [*row[:7], [*row[7][:7], "x" * 1000]]
    deep = json.loads("[" * 200 + "]" * 200)
    for wrong in (ragged, texts, deep, [], 3, {"a": 1}, [row, row], [[row]]):
        answer = image_client.post("/score", json={"rows": [row, wrong]})
        assert answer.status_code == 422
        assert "row 1, counted from 0, is not numbers in nested lists of 8 x 8" in problem(answer)
    row[0][0] = 0.5
    answer = image_client.post("/score", json={"rows": [row]})
    assert "the images are float64 but the detector was fitted on integers" in problem(answer)
    row[0][0] = 10**30
    assert "a whole number in the rows is too large" in problem(
        image_client.post("/score", json={"rows": [row]})
    )


def header(text: str) -> bytes:
    """Return an NPY file whose header says what it likes."""
    filled = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(filled).to_bytes(2, "little") + filled + bytes(64)


NPY = "{{'descr': {}, 'fortran_order': False, 'shape': {}}}"
TABLES = {
    "x.txt": (
        b"size,maker\n1,abel\n",
        415,
        "a file ends in '.txt'; this model is served files that end in .csv",
    ),
    "x.png": (b"\x89PNG", 415, "a file ends in '.png'"),
    "": (b"1", 422, ""),
    "x.csv": (b"", 400, "'x.csv' is empty"),
    "head.csv": (b"size,maker\n", 400, "a minimum of 1 is required"),
    "binary.csv": (b"\x00\xff\xfe\x00", 400, ""),
    "ragged.csv": (
        b"size,maker\n1,abel,3,4\n",
        400,
        "'ragged.csv' could not be read, it is damaged or cut short",
    ),
    "twice.csv": (b"size,size\n1,2\n", 400, ""),
    "other.csv": (b"size,make\n1,abel\n", 400, "unseen at fit time: - make"),
    "turned.csv": (b"maker,size\nabel,1\n", 400, "must be in the same order as they were in fit"),
    "words.csv": (
        b"size,maker\nwide,abel\n",
        400,
        "column 'size' held numbers in fit, but holds categories now",
    ),
    "hole.csv": (b"size,maker\n,abel\n", 400, "X holds NaN at row 0, column 0 ('size')"),
    "long.csv": (b"size,maker\n" + b"1,abel\n" * 61, 413, "61 rows were given; at most 60"),
    "wide.csv": (b"," * 2000 + b"\n", 413, "more than 1,002 columns"),
    "cut.parquet": (
        parquet(pl.DataFrame({"size": [1.0], "maker": ["abel"]}))[:-9],
        400,
        "'cut.parquet' could not be read",
    ),
    "no.parquet": (b"PAR1" + bytes(64) + b"PAR1", 400, "'no.parquet' could not be read"),
    "long.parquet": (parquet(pl.DataFrame({"size": np.ones(10**6)})), 413, "1,000,000 rows were given"),
    "lists.parquet": (
        parquet(pl.DataFrame({"size": [[1.0]], "maker": ["abel"]})),
        400,
        "'size' is of type list",
    ),
    "bomb.parquet": (
        parquet(pl.DataFrame({"size": np.ones(50), "maker": ["y" * 9999] * 50})),
        413,
        "are 499,950 bytes",
    ),
    "group.parquet": (
        parquet(
            pl.DataFrame({"size": np.ones(50), "maker": pl.Series(["y" * 9999] * 50, dtype=pl.Categorical)})
        ),
        413,
        "are 499,950 bytes",
    ),
    "x.npy": (npy(np.ones((2, 2))), 400, "column 'maker' held categories in fit, but holds numbers now"),
    "three.npy": (npy(np.ones((2, 3))), 400, "X has 3 features, but Table is expecting 2"),
    "cube.npy": (npy(np.ones((2, 2, 2))), 400, "Found array with dim 3"),
    "none.npy": (npy(np.ones((0, 2))), 400, "Found array with 0 sample(s)"),
    "one.npy": (npy(np.float64(1)), 400, "could not be read"),
    "text.npy": (npy(np.array([["a", "b"]])), 400, "holds <U1; numbers are wanted"),
    "cut.npy": (npy(np.ones((2, 2)))[:-1], 400, "'cut.npy' could not be read, it is damaged or cut short"),
    "pickle.npy": (bytes_of(lambda s: np.save(s, np.array([{}]), allow_pickle=True)), 400, "holds object"),
    "huge.npy": (header(NPY.format("'<f8'", "(10000000000000000, 2)")), 400, "its header says the shape"),
    "minus.npy": (header(NPY.format("'<f8'", "(-4, -2)")), 400, "its header says the shape"),
    "deep.npy": (header("(" * 110), 400, "has no header"),
    "fields.npy": (header(NPY.format("[('a', '<f8')]", "(8,)")), 400, "numbers are wanted"),
    "no.npy": (b"\x80\x04.", 400, "has no header"),
}


@pytest.mark.parametrize("name", TABLES)
def test_bad_tables(client, name):
    content, status, said = TABLES[name]
    for path in ("/score/file", "/explain/file"):
        answer = client.post(path, files={"file": (name, content)})
        assert answer.status_code == status, answer.text
        assert said in problem(answer)


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("import time; time.sleep(60)", 413, "'x.parquet' was not read within 1 seconds"),
        ("import os; os.abort()", 400, "it does not unpack, or to very much"),
    ],
)
def test_a_file_that_its_reader_cannot_bear(table_detector, tmp_path, monkeypatch, script, status, said):
    (tmp_path / "reader.py").write_text(script)
    monkeypatch.setattr("anograd.serve.unpack.__file__", str(tmp_path / "reader.py"))
    client = served(table_detector, Limits(seconds=1))
    client.post("/score", json={"rows": [[1.0, "abel"]]})
    answer = client.post("/score/file", files={"file": ("x.parquet", b"PAR1")})
    assert answer.status_code == status
    assert said in problem(answer) or "no answer within 1 seconds" in problem(answer)


def test_unpacking(tmp_path):
    frame = pl.DataFrame(
        {"a": [1.0, 2.0], "b": ["xy", None], "c": pl.Series(["u", "vw"], dtype=pl.Categorical)}
    )
    frame.write_parquet(tmp_path / "x.parquet")
    wanted = {"rows": 2, "columns": 3, "bytes": 5, "fitted": None}

    def unpacked(**other):
        (tmp_path / "x.arrow").unlink(missing_ok=True)
        found = unpack(str(tmp_path / "x.parquet"), str(tmp_path / "x.arrow"), wanted | other)
        assert (found["rows"], found["columns"]) == (2, ["a", "b", "c"][: other.get("columns", 2) + 1])
        return pl.read_ipc((tmp_path / "x.arrow").read_bytes()) if (tmp_path / "x.arrow").exists() else found

    assert unpacked().equals(frame)
    assert unpacked(fitted=["b", "a"]).columns == ["a", "b"]
    assert unpacked(fitted=["d", "a"]).equals(frame.head(1))
    assert unpacked(bytes=4)["texts"] == 5
    assert unpacked(rows=1)["texts"] == 0
    assert unpacked(columns=1)["texts"] == 0


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return png(np.zeros((20_000, 20_000), dtype=bool))


def test_bad_images(image_client, bomb, place):
    good = png(np.load(place / "x.npy")[0])
    wide = png(np.zeros((8, 9), np.uint8))
    colour = png(np.zeros((8, 8, 3), np.uint8))
    deep = bytes_of(lambda stream: Image.new("I;16", (8, 8)).save(stream, "PNG"))
    gif = bytes_of(lambda stream: Image.new("L", (8, 8)).save(stream, "GIF"))
    cases = [
        ([("a.png", good[:60])], 400, "the image 'a.png' could not be read, it is damaged or cut short"),
        ([("a.png", b"\x89PNG\r\n\x1a\n")], 400, "'a.png' could not be read"),
        ([("a.png", gif)], 400, "it is no PNG and no JPEG"),
        ([("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n")], 400, "it is no PNG and no JPEG"),
        (
            [("a.png", good), ("b.png", wide)],
            400,
            "'b.png' is 8 x 9 pixels, but the detector was fitted on 1 x 8 x 8",
        ),
        ([("a.png", colour)], 400, "the rows have shape 3 x 8 x 8, but the detector was fitted on 1 x 8 x 8"),
        (
            [("a.png", good), ("b.png", colour)],
            400,
            "the image 'b.png' is of shape (C, H, W) = (3, 8, 8), but 'a.png'",
        ),
        ([("a.png", deep)], 400, "has more than 8 bits a pixel"),
        ([("a.png", bomb)], 413, "'a.png' is too large"),
        ([("a.png", good)] * 61, 413, "61 rows were given; at most 60"),
        ([("a.png", good), ("x.npy", b"1")], 422, "2 files were given; one table or array is wanted"),
        ([("x.csv", b"1")], 415, "this model is served files that end in .npy, .png, .jpg, .jpeg"),
        ([("x.npy", npy(np.zeros((2, 3, 8, 8), np.uint8)))], 400, "the rows have shape 3 x 8 x 8"),
        ([("x.npy", npy(np.full((2, 8, 8), np.nan)))], 400, "X holds NaN at row 0"),
        ([("../../etc/a.png", good[:50])], 400, "damaged or cut short"),
    ]
    for files, status, said in cases:
        answer = image_client.post("/score/file", files=[("file", file) for file in files])
        assert answer.status_code == status, answer.text
        assert said in problem(answer)


def test_bad_forms(client, monkeypatch):
    file = {"file": ("x.csv", b"size,maker\n1,abel\n")}
    for more, status, said in [
        ({"data": {"alpha": "x"}, "files": file}, 422, "alpha='x' was given; wanted: a number"),
        ({"data": {"alpha": "nan"}, "files": file}, 400, "a rate between 0 and 1"),
        (
            {"data": {"budget": "1.5"}, "files": file},
            422,
            "budget='1.5' was given; wanted: a whole number",
        ),
        ({"data": {"alpha": ".1", "fdr": ".1"}, "files": file}, 400, "one of alpha, fdr, budget and costs"),
        ({"data": {"colour": "x"}, "files": file}, 422, "the field 'colour' is not known"),
        ({"data": {"alpha": [".1", ".2"]}, "files": file}, 422, "the field 'alpha' was given twice"),
        ({"params": {"alpha": ".1"}, "files": file}, 422, "?alpha=.1 was given in the address"),
        ({"data": {"rows": "a"}, "files": file}, 422, "whole numbers with commas between"),
        ({"data": {"rows": "1"}, "files": file}, 400, "there are the rows 0 to 0"),
        ({"data": {"rows": "-1"}, "files": file}, 400, "there are no such rows"),
        ({"data": {"rows": "9" * 5000}, "files": file}, 422, "whole numbers with commas between"),
        ({"data": {"rows": ",".join(["0"] * 51)}, "files": file}, 413, "at most 50 at once"),
        ({"files": {"other": file["file"]}}, 422, "the field is called file"),
        ({"files": {"x": (None, "y")}}, 422, "the field 'x' is not known"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400, "multipart"),
        (
            {"content": b"", "headers": {"content-type": "multipart/form-data; boundary=y"}},
            422,
            "no file was given",
        ),
        ({"json": {"rows": []}}, 415, "a form is wanted"),
        ({"files": [("file", file["file"])] * 2}, 422, "2 files were given"),
    ]:
        answer = client.post("/explain/file", **more)
        assert answer.status_code == status, answer.text
        assert said in problem(answer)
    monkeypatch.setattr("anograd.serve.service.MOST_FILES", 2)
    answer = client.post("/score/file", files=[("file", file["file"])] * 3)
    assert (answer.status_code, problem(answer)) == (400, "Too many files. Maximum number of files is 2.")
    answer = client.post("/score", content=b"<rows/>", headers={"content-type": "text/xml"})
    assert answer.status_code == 415
    assert "the body is called 'text/xml'; application/json is wanted" in problem(answer)
    assert "there is no /nowhere" in problem(client.get("/nowhere"))
    assert "GET is not for /score" in problem(client.get("/score"))
    answer = client.post("/score?alpha=0.5", json={"rows": [[1.0, "abel"]]})
    assert "?alpha=0.5 was given in the address; it belongs into the body" in problem(answer)
    fifty_one = {"rows": [[1.0, "abel"]] * 51}
    answer = client.post("/explain", json=fifty_one)
    assert answer.status_code == 413
    assert "51 rows were to be explained; at most 50 at once" in problem(answer)
    said = problem(client.post("/score", json={"rows": [[1, "abel"]], "x" * 9000: 1}))
    assert len(said) < 2100


class Pieces:
    """A body that comes in pieces and does not say how long it is."""

    def __init__(self, count: int, pause: float = 0.0) -> None:
        self.left, self.pause = count, pause

    def __iter__(self):
        while self.left:
            self.left -= 1
            yield b" " * 10_000


def test_a_body_is_measured_while_it_is_read(client):
    answer = client.post("/score", content=b" " * 100_001)
    assert answer.status_code == 413
    assert problem(answer) == "the body is larger than 100,000 bytes; send the rows in pieces"
    for path, kind in (("/score", "application/json"), ("/score/file", "multipart/form-data; boundary=x")):
        answer = client.post(path, content=iter(Pieces(1000)), headers={"content-type": kind})
        assert answer.status_code == 413
        assert "larger than 100,000 bytes" in problem(answer)
        answer = client.post(path, content=b"{}", headers={"content-length": "9" * 30, "content-type": kind})
        assert answer.status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(array_detector):
    async def ask() -> list[dict]:
        said: list[dict] = []

        async def receive():
            await asyncio.sleep(60)

        async def send(message):
            said.append(message)

        scope = {"type": "http", "method": "POST", "path": "/score", "headers": [], "query_string": b"",
                 "http_version": "1.1", "scheme": "http", "server": ("a", 1), "client": ("b", 2)}  # fmt: skip
        await serve.app(array_detector, Limits(seconds=0.2))(scope, receive, send)
        return said

    head, body = asyncio.run(ask())
    assert head["status"] == 408
    assert b"the body did not come within 0.2 seconds" in body["body"]


# Whatever JSON there is

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.sampled_from(["rows", "alpha", "fdr", "budget", "size", "maker"]) | st.text(max_size=5)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
ROW = st.lists(SCALARS, min_size=2, max_size=2) | st.fixed_dictionaries({"size": SCALARS, "maker": SCALARS})
NEARLY = st.fixed_dictionaries(
    {"rows": st.lists(ROW | ANY, max_size=4)}, optional={name: SCALARS for name in ("alpha", "fdr", "budget")}
)


@settings(max_examples=150, deadline=None)
@given(body=ANY | NEARLY, path=st.sampled_from(["/score", "/explain"]))
def test_any_json_is_answered(client, body, path):
    answer = client.post(path, content=json.dumps(body).encode())
    assert answer.status_code in {200, 400, 413, 422}
    json.loads(answer.text, parse_constant=pytest.fail)
    if answer.status_code != 200:
        problem(answer)


def test_rows_are_chosen_only_where_they_are_explained(client):
    file = {"file": ("x.csv", b"size,maker\n1,abel\n")}
    answer = client.post("/score/file", data={"rows": "0"}, files=file)
    assert answer.status_code == 422
    assert "the field 'rows' is not known; wanted are file, alpha, fdr, budget, costs" in problem(answer)
