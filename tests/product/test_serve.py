"""The HTTP service: the same numbers as in Python, and one JSON problem for whatever is wrong."""

from __future__ import annotations

import copy
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import numpy as np
import polars as pl
import pytest
import torch
from PIL import ExifTags, Image
from tests.product.conftest import ENVIRONMENT, SMALL, bytes_of, fails, npy, parquet, png, problem, served

import anograd as ag
from anograd import serve, store
from anograd.serve.counting import HEADERS
from anograd.serve.limits import Limits

pytestmark = pytest.mark.usefixtures("one_thread")


def frame_of(place) -> pl.DataFrame:
    return pl.read_csv(place / "x.csv").drop("class")


# What works


def test_what_it_says_of_itself(client, image_client, table_detector):
    assert client.get("/health").json() == {"ready": True, "model": "GradCon", "version": ag.__version__}
    info = client.get("/info").json()
    assert info["columns"] == [{"name": "size", "kind": "number"}, {"name": "maker", "kind": "category"}]
    assert info["row"].startswith("a list of 2 cells in the order of the columns, or an object")
    assert info["limits"] == {"rows": 60, "bytes": 100_000, "seconds": 20, "explained": 50}
    assert info["rule"]["smallest_p"] == 1 / (len(table_detector.calibration_.scores) + 1)
    assert info["files"] == [".csv", ".parquet", ".npy"]
    info = image_client.get("/info").json()
    assert (info["kind"], info["shape"], info["files"]) == (
        "images",
        [1, 8, 8],
        [".npy", ".png", ".jpg", ".jpeg"],
    )
    assert info["row"] == "nested lists of 1 x 8 x 8 whole numbers, mostly 0 to 255"
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/",
        "/health",
        "/info",
        "/metrics",
        "/score",
        "/explain",
        "/score/file",
        "/explain/file",
    }
    assert "429" in paths["/score"]["post"]["responses"]


@pytest.mark.parametrize("shape", ["lists", "objects", "csv", "parquet"])
def test_scores_are_those_of_the_detector(client, table_detector, place, shape):
    frame = frame_of(place)
    if shape == "lists":
        answer = client.post("/score", json={"rows": [list(row) for row in frame.rows()], "alpha": 0.2})
    elif shape == "objects":  # whose order does not matter
        rows = frame.select("maker", "size").to_dicts()
        answer = client.post("/score", json={"rows": rows, "alpha": 0.2})
    else:
        content = (place / f"x.{shape}").read_bytes()
        answer = client.post("/score/file", files={"file": (f"x.{shape}", content)}, data={"alpha": "0.2"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    np.testing.assert_array_equal(found["scores"], table_detector.anomaly_score(frame))
    np.testing.assert_array_equal(found["p_values"], table_detector.p_values(frame))
    np.testing.assert_array_equal(found["anomalies"], table_detector.detect(frame, alpha=0.2))
    assert (found["rule"], found["rows"], found["names"]) == ({"alpha": 0.2}, 60, list(range(60)))
    assert found["alarms"] == sum(found["anomalies"])
    left_out = [f"'x.{shape}' has columns that the model was not fitted on, and they are left out: 'class'"]
    assert found["warnings"] == (left_out if shape in ("csv", "parquet") else [])


@pytest.mark.filterwarnings("ignore:.*raises no alarm")
@pytest.mark.parametrize(
    "rule", [{}, {"alpha": 0.1}, {"fdr": 0.5}, {"budget": 3}, {"alpha": None, "budget": 0}]
)
def test_rules(client, table_detector, place, rule):
    frame = frame_of(place)
    given = {name: value for name, value in rule.items() if value is not None}
    found = client.post("/score", json={"rows": frame.rows(), **rule}).json()
    np.testing.assert_array_equal(found["anomalies"], table_detector.detect(frame, **given))
    assert found["rule"] == (given or {"alpha": 0.05})


def test_a_level_out_of_reach_is_told(client):
    found = client.post("/score", json={"rows": [[9.0, "abel"]], "alpha": 0.001}).json()
    assert found["warnings"][0].startswith("alpha=0.001 raises no alarm: with m = ")


def test_other_columns_are_left_out(client):
    row = {"size": 10.0, "maker": "abel", "colour": ["any", "thing"]}
    found = client.post("/score", json={"rows": [row]}).json()
    assert found["warnings"] == ["columns that the model was not fitted on are left out: 'colour'"]


def test_an_array_without_names_and_with_empty_cells(array_detector):
    client = served(array_detector)
    rows = np.array([[0.5, np.nan, 1.0], [4.0, 5.0, 6.0]])
    expected = array_detector.anomaly_score(rows)
    found = client.post("/score", json={"rows": [[0.5, None, 1], [4, 5, 6]]}).json()
    np.testing.assert_array_equal(found["scores"], expected)
    found = client.post("/score/file", files={"file": ("x.npy", npy(rows))}).json()
    np.testing.assert_array_equal(found["scores"], expected)
    found = client.post("/score/file", files={"file": ("x.csv", b"0,1,2\n0.5,,1\n4,5,6\n")}).json()
    np.testing.assert_array_equal(found["scores"], expected)
    reason = client.post("/explain", json={"rows": [[0.5, None, 1]]}).json()["reasons"][0]
    assert reason["features"][1]["given"] is None
    assert "have no names" in problem(client.post("/score", json={"rows": [{"0": 1, "1": 2, "2": 3}]}))


def test_scores_of_images(image_client, image_detector, place):
    images = np.load(place / "x.npy")[[0, 55, 20]]
    expected = image_detector.anomaly_score(images)
    for rows in (images.tolist(), images[:, None].tolist(), images.astype(float).tolist()):
        found = image_client.post("/score", json={"rows": rows}).json()
        np.testing.assert_array_equal(found["scores"], expected)
    found = image_client.post("/score/file", files={"file": ("x.npy", npy(images))}).json()
    np.testing.assert_array_equal(found["scores"], expected)
    files = [
        ("file", (name, png(image))) for name, image in zip(["b.png", "a.png", "c.png"], images, strict=True)
    ]
    found = image_client.post("/score/file", files=files).json()
    np.testing.assert_array_equal(found["scores"], expected)
    assert found["names"] == ["b.png", "a.png", "c.png"]
    files = {"file": ("x.jpg", png(images[0], "JPEG"))}
    assert image_client.post("/score/file", files=files).json()["rows"] == 1


def test_reasons_are_those_of_the_detector(client, image_client, table_detector, image_detector, place):
    frame = frame_of(place)[:50]
    found = client.post("/explain", json={"rows": frame.rows()}).json()
    expected = table_detector.explain(frame)
    np.testing.assert_array_equal(found["scores"], table_detector.anomaly_score(frame))
    for i, reason in enumerate(found["reasons"]):
        assert [one["name"] for one in reason["features"]] == ["size", "maker"]
        np.testing.assert_array_equal(
            [one["contribution"] for one in reason["features"]], expected.features[i]
        )
        assert reason["features"][1]["given"] == frame["maker"][i]
        assert reason["anomaly"] == found["anomalies"][i]
    content = (place / "x.csv").read_bytes()
    found = client.post("/explain/file", files={"file": ("x.csv", content)}, data={"rows": "55, 3"}).json()
    assert [reason["row"] for reason in found["reasons"]] == [55, 3]
    assert len(found["scores"]) == 60
    image = np.load(place / "x.npy")[55]
    found = image_client.post("/explain/file", files={"file": ("x.png", png(image))}).json()
    assert found["reasons"][0]["row"] == "x.png"
    np.testing.assert_allclose(found["reasons"][0]["pixels"], image_detector.explain(image[None]).features[0])


def test_a_network_that_was_handed_in():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 2))
    target = ag.Target.adopt(network, loss="mse", layers="*.weight")
    detector = ag.GradCon(target=target, random_state=0).fit(torch.randn(60, 2))
    client = served(detector)
    rows = [[0.5, 1.0], [2.0, 3.0]]
    found = client.post("/explain", json={"rows": rows}).json()
    np.testing.assert_array_equal(found["scores"], detector.anomaly_score(np.array(rows)))
    assert len(found["reasons"][0]["pixels"]) == 2
    for body in (b"size,wide\n0.5,1.0\n2,3\n", npy(np.array(rows))):
        name = "x.csv" if body.startswith(b"size") else "x.npy"
        answer = client.post("/score/file", files={"file": (name, body)}).json()
        np.testing.assert_array_equal(answer["scores"], found["scores"])
    answer = client.post("/score", json={"rows": [[1, 2]]})
    assert answer.status_code == 400
    assert "1.0 is a real number to it" in problem(answer)


def test_numbers_beyond_json_are_bounded(array_detector, monkeypatch):
    monkeypatch.setattr(type(array_detector), "anomaly_score", lambda self, X: np.array([np.inf]))
    text = served(array_detector).post("/score", json={"rows": [[1, 2, 3]]}).text
    assert json.loads(text, parse_constant=pytest.fail)["scores"] == [sys.float_info.max]


# One turn at a time


def together(*asked):
    """Make requests at once; return what each took and was answered, in their order."""
    found = [None] * len(asked)

    def ask(i):
        start = time.perf_counter()
        answer = asked[i]()
        found[i] = (time.perf_counter() - start, answer)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    return found


@pytest.fixture
def slow(array_detector, monkeypatch):
    score = type(array_detector).anomaly_score

    def slowly(self, X):
        time.sleep(0.6)
        return score(self, X)

    monkeypatch.setattr(type(array_detector), "anomaly_score", slowly)
    return array_detector


def test_requests_wait_for_their_turn(slow):
    with served(slow, Limits(seconds=10)) as client:
        post = lambda: client.post("/score", json={"rows": [[1, 2, 3]]})  # noqa: E731
        first, second, third = together(post, post, lambda: client.get("/health"))
    assert first[1].status_code == second[1].status_code == 200
    assert second[0] > 1.0
    assert third[0] < 0.5  # others are answered all the while


def test_who_waits_too_long_is_told(slow):
    with served(slow, Limits(seconds=0.4)) as client:
        post = lambda: client.post("/score", json={"rows": [[1, 2, 3]]})  # noqa: E731
        first, second = together(post, post)
        assert "these rows take longer: send fewer" in problem(first[1])
        assert "other requests are before it: try again" in problem(second[1])
        assert (first[1].status_code, second[1].status_code) == (413, 429)
        assert second[1].headers["retry-after"] == "1"


def test_a_long_queue_is_refused(slow, monkeypatch):
    monkeypatch.setattr("anograd.serve.counting.MOST_WAITING", 1)
    with served(slow) as client:
        post = lambda: client.post("/score", json={"rows": [[1, 2, 3]]})  # noqa: E731
        first, second = together(post, post)
    assert first[1].status_code == 200
    assert second[1].status_code == 429
    assert "requests wait already" in problem(second[1])


# What is kept: counts alone


def test_numbers_for_digits_that_were_categories_and_for_yes_and_no():
    draw = np.random.default_rng(0)
    frame = pl.DataFrame({"size": draw.normal(size=60), "shop": draw.integers(0, 10, 60)})
    frame = frame.with_columns(vip=pl.col("size") > 0)
    detector = ag.GradCon(epochs=1, random_state=0).fit(frame.with_columns(pl.col("shop").cast(pl.String)))
    numbers, client = frame.with_columns(pl.col("vip").cast(pl.Int8)), served(detector)
    expected = detector.anomaly_score(frame.with_columns(pl.col("shop").cast(pl.String)))
    for answer in (
        client.post("/score/file", files={"file": ("x.parquet", parquet(numbers))}),
        client.post("/score/file", files={"file": ("x.csv", numbers.write_csv().encode())}),
        client.post("/score", json={"rows": [list(row) for row in numbers.rows()]}),
    ):
        assert answer.status_code == 200, answer.text
        np.testing.assert_array_equal(answer.json()["scores"], expected)


def test_a_picture_on_its_side_is_turned():
    images = np.random.default_rng(0).integers(0, 255, (40, 1, 12, 8)).astype(np.uint8)
    detector = ag.GradCon(epochs=1, random_state=0).fit(images)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = Image.fromarray(np.rot90(images[0, 0]))
    content = bytes_of(lambda stream: turned.save(stream, "PNG", exif=exif))
    answer = served(detector).post("/score/file", files={"file": ("x.png", content)})
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["scores"], detector.anomaly_score(images[:1]), rtol=1e-6)


def test_metrics_count(table_detector):
    client = served(table_detector, SMALL)
    client.post("/score", json={"rows": [[1.0, "abel"]] * 7})
    client.post("/explain", json={"rows": [[1.0, "abel"]] * 2})
    client.post("/score", content=b"x")
    client.get("/nowhere")
    text = client.get("/metrics").text
    for line in (
        'anograd_requests_total{path="/score",status="200"} 1',
        'anograd_requests_total{path="/score",status="400"} 1',
        'anograd_requests_total{path="other",status="404"} 1',
        'anograd_errors_total{status="400"} 1',
        "anograd_rows_scored_total 9",
        'anograd_request_seconds_bucket{path="/score",le="+Inf"} 2',
        'anograd_request_seconds_count{path="/explain"} 1',
    ):
        assert line in text.splitlines()
    assert all(re.fullmatch(r"# .+|\w+(\{[^{}]*\})? [\d.e-]+", line) for line in text.splitlines())


def test_nothing_of_the_sender_stays(table_detector, image_detector, tmp_path, monkeypatch, place):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    client = served(table_detector, Limits(bytes=4 * 2**20))
    rows = b"size,maker\n" + b"1,abel\n" * 9_000
    large = rows + b"#" * 2 * 2**20  # which does not stay in memory while the form is read
    for name, content, status in (("x.csv", rows, 200), ("x.csv", large, 400), ("x.parquet", rows, 400)):
        assert client.post("/score/file", files={"file": (name, content)}).status_code == status
        assert not list(tmp_path.iterdir())
    client = served(image_detector)
    good = png(np.load(place / "x.npy")[0])
    for content, status in ((good, 200), (good[:60], 400)):
        assert client.post("/score/file", files={"file": ("x.png", content)}).status_code == status
        assert not list(tmp_path.iterdir())


def test_a_fault_of_ours_shows_nothing(array_detector, monkeypatch):
    def fault(self, X):
        raise KeyError("secret")

    monkeypatch.setattr(type(array_detector), "anomaly_score", fault)
    client = served(array_detector, raise_server_exceptions=False)
    answer = client.post("/score", json={"rows": [[1, 2, 3]]})
    assert answer.status_code == 500
    assert problem(answer) == "the service failed at this request; its log says where"


# The page


def test_the_page_stands_alone(client):
    answer = client.get("/")
    style = answer.text[answer.text.index("<style>") : answer.text.index("</style>")]
    assert re.search(r"tr\.why \.level {[^}]*overflow-wrap: anywhere", style)
    assert 'typeof value === "string" ? "number level"' in answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
    )
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    page = answer.text
    assert re.findall(r"(?:https?:)?//[\w.]+\.\w+|@import|<link(?! rel=\"icon\" href=\"data:,\")", page) == []
    fields = re.findall(r"<(?:input|textarea|select)[^>]* id=\"([\w-]+)\"", page)
    assert len(fields) == len(re.findall(r"<(?:input|textarea|select)\b", page)) == 6
    assert set(re.findall(r"<label[^>]* for=\"([\w-]+)\"", page)) == set(fields)
    assert "innerHTML" not in page
    assert "prefers-color-scheme: dark" in page


# The command


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_command(table_model, place, tmp_path, workers):
    command = [
        sys.executable,
        "-m",
        "anograd",
        "serve",
        table_model,
        "--port",
        "0",
        "--workers",
        str(workers),
    ]
    with subprocess.Popen(command, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
            until = time.monotonic() + 120
            while True:
                try:
                    with urllib.request.urlopen(url + "health", timeout=10) as answer:
                        assert json.load(answer)["ready"]
                    break
                except OSError:
                    assert time.monotonic() < until
                    assert process.poll() is None
                    time.sleep(0.1)
            body = json.dumps({"rows": [[10.0, "abel"]]}).encode()
            asked = urllib.request.Request(url + "score", body, {"content-type": "application/json"})
            with urllib.request.urlopen(asked, timeout=30) as answer:
                found = json.load(answer)
        finally:
            process.send_signal(signal.SIGINT)
            said = line + process.communicate(timeout=60)[1]
    assert said == f"{table_model} is served at {url} ; Ctrl-C ends it\n"
    assert process.returncode in (0, 130)
    expected = ag.load(table_model).anomaly_score(pl.DataFrame({"size": [10.0], "maker": ["abel"]}))
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-5)


def test_the_command_refuses_in_one_line(table_model, tmp_path):
    assert "there is no folder" in fails("serve", tmp_path / "none")
    assert "'many' is no amount of memory: write it like 20MB" in fails(
        "serve", table_model, "--most-bytes", "many"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = fails("serve", table_model, "--port", port)
    assert f"127.0.0.1, port {port}: Address already in use; give another --port or --host" in line


def test_a_worker_that_begins_later_tells_of_another_model(images_model, table_model, monkeypatch, caplog):
    monkeypatch.setenv("ANOGRAD_SERVE_LIMITS", SMALL.to_text())
    monkeypatch.setenv("ANOGRAD_SERVE_WHICH", store.fingerprint(images_model))
    for model, told in ((images_model, 0), (table_model, 1)):
        monkeypatch.setenv("ANOGRAD_SERVE_MODEL", str(model))
        served_by = serve.factory()
        assert served_by.title == "anograd"
        assert caplog.text.count("holds another model than when the service began") == told


def test_without_fastapi_the_extra_is_named(table_model):
    code = "import sys; sys.modules['fastapi'] = None; from anograd.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", table_model]
    told = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    assert told.returncode == 1
    assert told.stderr == (
        "error: serving needs fastapi, uvicorn and python-multipart: pip install 'anograd[serve]'\n"
    )


def test_a_rule_by_costs_wants_known_anomalies(array_detector):
    frame = {"rows": [[0.1, 0.2, 0.3], [9.0, 9.0, -9.0]], "costs": [1, 50]}
    detector = copy.deepcopy(array_detector)
    without = served(detector)
    assert "costs" not in without.get("/info").json()["rule"]
    assert "costs need known anomalies" in problem(without.post("/score", json=frame))
    rng = np.random.default_rng(0)
    detector.calibrate(rng.normal(size=(30, 3)), anomalies=rng.normal(5, 1, size=(12, 3)))
    made = served(detector)
    assert "costs" in made.get("/info").json()["rule"]
    found = made.post("/score", json=frame).json()
    assert (found["rule"], found["anomalies"]) == ({"costs": [1, 50]}, [False, True])
    upload = {"files": {"file": ("x.npy", npy(np.array(frame["rows"])))}}
    assert made.post("/score/file", **upload, data={"costs": "1:50"}).json()["anomalies"] == [False, True]
    for wrong in ("1:50", [1, "50"], [1], [0, 1], 5):
        assert made.post("/score", json=frame | {"costs": wrong}).status_code in (400, 422)
    said = problem(made.post("/score/file", **upload, data={"costs": "50"}))
    assert "costs='50' was given; wanted: two numbers, such as 1:50" in said


@pytest.mark.parametrize("images", [np.float64, np.uint16])
def test_pictures_are_not_offered_where_none_could_be_read(images):
    rows = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype(images)
    detector = ag.GradCon(epochs=1, random_state=0, device="cpu").fit(200 * rows)
    client = served(detector)
    assert client.get("/info").json()["files"] == [".npy"]
    upload = {"file": ("x.png", b"not looked at")}
    assert "files that end in .npy" in problem(client.post("/score/file", files=upload))
