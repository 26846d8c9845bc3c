"""The service under attack: what its own document allows and forbids, and senders that never end."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
import urllib.request
import warnings

import pytest
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from tests.product.conftest import SMALL, served

from anograd import serve
from anograd.serve import connection
from anograd.serve.connection import Connection

schemathesis = pytest.importorskip("schemathesis")
pytestmark = pytest.mark.usefixtures("one_thread")
HEAD = b" HTTP/1.1\r\nHost: here\r\n"


# What the document says


@pytest.mark.parametrize("kind", ["table_detector", "image_detector"])
@pytest.mark.parametrize("path", ["/score", "/explain", "/score/file"])
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_answers_are_as_documented(request, kind, path, mode):
    document = schemathesis.openapi.from_asgi(
        "/openapi.json", serve.app(request.getfixturevalue(kind), SMALL)
    )
    drawn = document[path]["POST"].as_strategy(generation_mode=schemathesis.GenerationMode[mode])

    @settings(
        max_examples=8, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(drawn)
    def ask(case):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = case.call()
        assert answer.status_code in {200, 400, 413, 415, 422}
        assert set(map(str, document.raw_schema["paths"][path]["post"]["responses"])) >= {
            str(answer.status_code)
        }
        json.loads(answer.text, parse_constant=pytest.fail)

    ask()


def test_a_row_as_documented_is_accepted(table_detector, array_detector, image_detector):
    for detector, row in (
        (table_detector, {"size": 1.0, "maker": "abel"}),
        (array_detector, [0.5, None, 1]),
        (image_detector, [[[7] * 8] * 8]),
    ):
        client = served(detector, SMALL)
        paths = client.get("/openapi.json").json()["paths"]
        schema = paths["/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        jsonschema = pytest.importorskip("jsonschema")
        for body in ({"rows": [row], "alpha": 0.2}, {"rows": [row] * 2, "budget": 1}):
            jsonschema.validate(body, schema)
            assert client.post("/score", json=body).status_code == 200
        for body in ({"rows": []}, {"rows": [row], "alpha": 2}, {"rows": [row] * 61}, {"rows": [[1]]}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(body, schema)
            assert client.post("/score", json=body).status_code in {400, 413, 422}


# Senders that take their time


@pytest.fixture(scope="module")
def port(table_detector):
    """A service on a port of this machine, which waits a short while only."""
    config = uvicorn.Config(
        serve.app(table_detector, SMALL), http=Connection, log_level="critical", lifespan="off"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "PATIENCE", {"head": 0.6, "rest": 0.6, "answer": 0.6})
        patch.setattr(connection, "MOST_CONNECTED", 20)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def said(stream: socket.socket) -> bytes:
    """Return all that comes until the other side ends it."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := stream.recv(65536):
            found += piece
    return found


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def drip(stream: socket.socket, piece: bytes) -> None:
    """Send a little again and again, until the other side has had enough."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for _ in range(200):
            stream.sendall(piece)
            time.sleep(0.05)
        pytest.fail("nobody ended it")


@pytest.mark.parametrize(
    ("begins", "goes_on", "status"),
    [
        (b"GET /health" + HEAD, b"x", b""),
        (b"GET /health" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", b"200 OK"),
        (b"POST /score" + HEAD + b"Content-Length: 900000\r\n\r\n", b" ", b"413 "),
        (b"POST /nowhere" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", b"404 "),
    ],
)
def test_who_drips_is_cut_off(port, begins, goes_on, status):
    with connected(port) as stream:
        stream.sendall(begins)
        drip(stream, goes_on)
        assert said(stream).startswith(b"HTTP/1.1 " + status if status else b"")


def test_head_is_answered_as_get_is(port):
    """Monitors and load balancers ask so; the body stays behind."""
    with connected(port) as stream:
        stream.sendall(b"HEAD /health" + HEAD + b"Connection: close\r\n\r\n")
        head, _, body = said(stream).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"content-type: application/json" in head
    assert body == b""


def test_who_says_nothing_is_cut_off(port):
    with connected(port) as stream:
        assert said(stream) == b""


def test_who_does_not_read_is_cut_off(port):
    with connected(port) as stream:
        drip(stream, (b"GET /" + HEAD + b"\r\n") * 50)


def test_who_goes_away_is_no_fault_of_ours(port):
    for rest in (b"Content-Length: 9\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n"):
        with connected(port) as stream:
            stream.sendall(b"POST /explain" + HEAD + rest)
            time.sleep(0.2)
    counted = 'requests_total{path="/explain",status="400"} 2'
    until = time.monotonic() + 10
    while counted not in metrics(port) and time.monotonic() < until:
        time.sleep(0.05)
    assert counted in metrics(port)
    assert 'status="500"' not in metrics(port)


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        return answer.read().decode()


def test_who_takes_turns_is_not(port):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:
        client.connect()
        stream = client.sock
        for _ in range(6):
            client.request("GET", "/health")
            with client.getresponse() as answer:
                assert json.load(answer)["ready"]
            time.sleep(0.2)
        assert client.sock is stream


def test_too_many_are_cut_off_and_the_rest_served(port):
    with contextlib.ExitStack() as held:
        streams = [held.enter_context(connected(port)) for _ in range(25)]
        streams[0].sendall(b"GET /health" + HEAD + b"\r\n")
        assert streams[0].recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert said(streams[-1]) == b""
    time.sleep(0.2)
    with connected(port) as stream:
        stream.sendall(b"GET /health" + HEAD + b"Connection: close\r\n\r\n")
        assert said(stream).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/x.y\r\nHost: here\r\n\r\n",
        b"GET /health" + HEAD + b"X: " + b"y" * 600_000 + b"\r\n\r\n",
        b"POST /score" + HEAD + b"Content-Length: -1\r\n\r\n",
        b"POST /score" + HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /score" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_refused(port, sent):
    with connected(port) as stream:
        stream.sendall(sent)
        found = said(stream)
    assert not found or found.startswith(b"HTTP/1.1 400 Bad Request")  # a reset may overtake the answer
    with connected(port) as stream:
        stream.sendall(b"GET /health" + HEAD + b"Connection: close\r\n\r\n")
        assert said(stream).startswith(b"HTTP/1.1 200 OK")
