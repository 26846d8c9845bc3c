"""The service under load and under attack: requests a second beside calls in Python, 1,000 hostile requests.

``python benchmarks/service_load.py`` starts ``anograd serve`` on a free port of 127.0.0.1, with one worker
and with two, asks it a counted number of times with 1 and 16 clients, and attacks one worker with requests
written by hand and drawn by schemathesis from the service's own OpenAPI document. What it starts it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import record
from anograd import R2AD2, GradCon, load
from anograd.serve.answers import dumps, scored
from anograd.serve.limits import Limits
from anograd.serve.rows import read_body

NAME = "service_load"
COLUMNS, SIDE = 10, 16
ASKED = {1: 300, 100: 100}  # requests, by rows in each
CLIENTS, WORKERS = (1, 16), (1, 2)
HOSTILE, WARM_UP = 1000, 200
SECONDS = 3  # that the attacked service waits for a body
Ask = Callable[[int, np.random.Generator], int]  # from a port to the status; 0: cut off


@contextlib.contextmanager
def service(model: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Yield the port and process of a service that has answered once."""
    command = [sys.executable, "-m", "anograd", "serve", str(model), "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            until = time.monotonic() + 120
            while not (found := re.search(r":(\d+)/", Path(f"/proc/self/fd/{log.fileno()}").read_text())):
                _still(process, until)
                time.sleep(0.1)
            port = int(found[1])
            while health(port) > 100:
                _still(process, until)
                time.sleep(0.1)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(60)


def _still(process: subprocess.Popen[bytes], until: float) -> None:
    if process.poll() is not None or time.monotonic() > until:
        raise RuntimeError("the service did not start")


def health(port: int) -> float:
    """Return after how many seconds the service says that it is ready; 999 where it does not."""
    start = time.perf_counter()
    try:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
            client.request("GET", "/health")
            assert json.load(client.getresponse())["ready"]
    except OSError:
        return 999
    return time.perf_counter() - start


def resident(pid: int) -> float:
    """Return the memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


# Load


def in_process(model: Path, body: bytes, count: int) -> list[float]:
    """Return what each call takes in Python, from the same body to the same answer."""
    detector, limits = load(model), Limits()
    taken = []
    for _ in range(count + 5):
        start = time.perf_counter()
        dumps(scored(detector, *read_body(body, detector, limits)))
        taken.append(time.perf_counter() - start)
    return taken[5:]


def asked(port: int, body: bytes, clients: int, count: int) -> tuple[list[float], float]:
    """Return what each request takes, and all of them together."""
    taken: list[float] = []

    def ask() -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as client:
            for _ in range(count // clients):
                start = time.perf_counter()
                client.request("POST", "/score", body, {"content-type": "application/json"})
                answer = client.getresponse()
                answer.read()
                assert answer.status == 200
                taken.append(time.perf_counter() - start)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken, time.perf_counter() - start


def told(kind: str, way: str, rows: int, taken: list[float], whole: float) -> None:
    line = {
        "kind": kind, "way": way, "rows": rows, "requests": len(taken),
        "a_second": round(len(taken) / whole, 1),
        "p50_ms": round(1000 * statistics.median(taken), 2),
        "p99_ms": round(1000 * float(np.quantile(taken, 0.99)), 2),
    }  # fmt: skip
    record.write(NAME, line)
    print(line, flush=True)


def under_load(model: Path) -> None:
    rng = np.random.default_rng(0)
    for rows, count in ASKED.items():
        body = json.dumps({"rows": rng.normal(size=(rows, COLUMNS)).round(4).tolist()}).encode()
        taken = in_process(model, body, count)
        told("load", "in Python", rows, taken, sum(taken))
        for workers in WORKERS:
            with service(model, "--workers", str(workers)) as (port, _):
                asked(port, body, max(CLIENTS), 64)
                for clients in CLIENTS:
                    way = f"{workers} worker{'s' * (workers > 1)}, {clients} client{'s' * (clients > 1)}"
                    told("load", way, rows, *asked(port, body, clients, count))


# Attack


def post(path: str, body: bytes, kind: str = "application/json", **headers: str) -> Ask:
    """Return a request through an ordinary client."""

    def ask(port: int, _: np.random.Generator) -> int:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
            try:
                client.request("POST", path, body, {"content-type": kind, **headers})
                return client.getresponse().status
            except (ConnectionError, http.client.HTTPException):
                return 0

    return ask


def raw(*pieces: bytes, pause: float = 0.0) -> Ask:
    """Return a request of bytes, and a small wait between them."""

    def ask(port: int, _: np.random.Generator) -> int:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as stream:
            with contextlib.suppress(OSError):
                for piece in pieces:
                    stream.sendall(piece)
                    time.sleep(pause)
            with contextlib.suppress(OSError):
                found = stream.recv(65536)
                return int(found[9:12]) if found.startswith(b"HTTP/1.1 ") else 0
        return 0

    return ask


def upload(path: str, name: str, content: bytes, kind: str = "multipart/form-data; boundary=zz") -> Ask:
    head = f'--zz\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    return post(path, head + content + b"\r\n--zz--\r\n", kind)


def drawn(path: str, odd: bool) -> Ask:
    """Return a request with values of any kind."""
    values: list[Any] = [None, True, -1, 1e308, 10**400, "x", "", [], {}, [[1]], "\x00", "\ud800", -0.0]

    def ask(port: int, rng: np.random.Generator) -> int:
        rows: Any = [[values[i] for i in rng.integers(len(values), size=COLUMNS)] for _ in range(3)]
        body = (
            {"rows": rows, "alpha": values[int(rng.integers(len(values)))]}
            if odd
            else values[int(rng.integers(13))]
        )
        return post(path, json.dumps(body).encode())(port, rng)

    return ask


def written(of_images: bool) -> dict[str, Ask]:
    """Return hostile requests by name."""
    head = b"POST /score HTTP/1.1\r\nHost: here\r\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.npy", bytes(50_000_000))
    bomb = stream.getvalue()
    picture = io.BytesIO()
    Image.fromarray(np.zeros((20_000, 20_000), dtype=bool)).save(picture, "PNG")
    small = io.BytesIO()
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(small, "PNG")
    lying = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (10**9, 99)}".ljust(117)
        + b"\n"
    )
    many = b"".join(
        b'--zz\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\nx\r\n'
        for _ in range(2000)
    )
    pieces = head + b"Transfer-Encoding: chunked\r\n\r\n"
    mebibyte = b"100000\r\n" + bytes(2**20) + b"\r\n"
    unknown = json.dumps({"rows": [dict.fromkeys(map(str, range(900)), 1)]}).encode()
    both = {
        "wrong types": drawn("/score", odd=True),
        "wrong types, explained": drawn("/explain", odd=True),
        "any JSON": drawn("/score", odd=False),
        "NaN": post("/score", b'{"rows": [[NaN, Infinity]]}'),
        "infinite after all": post("/score", b'{"rows": [[%s]]}' % b",".join([b"1e999"] * COLUMNS)),
        "deep lists": post("/score", b"[" * 1_000_000),
        "deep objects": post("/score", b'{"rows":' * 200_000),
        "millions of lists": post("/score", b'{"rows": [' + b"[]," * 2_000_000 + b"[]]}"),
        "unknown columns": post("/score", unknown),
        "100 MB": post("/score", bytes(100_000_000)),
        "100 MB in pieces": raw(pieces, *[mebibyte] * 100),
        "wrong content type": post("/score", b"<rows/>", "text/xml"),
        "form for JSON": post("/score/file", b'{"rows": []}'),
        "no boundary": post("/score/file", b"x", "multipart/form-data"),
        "broken multipart": post("/score/file", b"--zz\r\nContent-Dis", "multipart/form-data; boundary=zz"),
        "2,000 files": post("/score/file", many + b"--zz--\r\n", "multipart/form-data; boundary=zz"),
        "zip bomb": upload("/score/file", "rows.npz", bomb),
        "zip bomb as NPY": upload("/score/file", "rows.npy", bomb),
        "NPY that lies": upload("/score/file", "rows.npy", lying),
        "pickle": upload("/score/file", "rows.npy", b"\x80\x04\x95."),
        "path for a name": upload("/explain/file", "../../etc/passwd.csv", b"a,b\n1,2\n"),
        "huge head": raw(b"GET /health HTTP/1.1\r\nHost: here\r\nX: " + b"y" * 2_000_000 + b"\r\n\r\n"),
        "10,000 heads": raw(b"GET /health HTTP/1.1\r\nHost: here\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"),
        "length too long": raw(head + b"Content-Length: 500\r\n\r\n{}"),
        "length too short": raw(head + b'Content-Length: 2\r\n\r\n{"rows": [[1]]}'),
        "length below 0": raw(head + b"Content-Length: -5\r\n\r\n{}"),
        "two lengths": raw(head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}"),
        "length and pieces": raw(head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "pieces without end": raw(pieces, *[b"1\r\n \r\n"] * 20, pause=0.05),
        "broken pieces": raw(pieces + b"xyz\r\n"),
        "drips a head": raw(*[bytes([one]) for one in b"GET /health HTTP/1.1\r\nHost:"], pause=0.05),
        "drips a body": raw(head + b"Content-Length: 90\r\n\r\n", *[b" "] * 20, pause=0.05),
        "goes away": raw(head + b"Content-Length: 90\r\n\r\n{"),
        "no HTTP": raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        "no host": raw(b"GET /health HTTP/1.1\r\n\r\n"),
        "pipelined": raw(b"GET /info HTTP/1.1\r\nHost: here\r\n\r\n" * 500),
        "other methods": raw(b"BREW /score HTTP/1.1\r\nHost: here\r\n\r\n"),
        "odd path": raw(b"GET /%00/..%2f..%2fetc/passwd HTTP/1.1\r\nHost: here\r\n\r\n"),
    }  # fmt: skip
    own = {
        "image bomb": upload("/score/file", "a.png", picture.getvalue()),
        "broken image": upload("/score/file", "a.png", small.getvalue()[:60]),
        "EPS for PNG": upload("/score/file", "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
        "ragged pixels": post("/score", json.dumps({"rows": [[[1] * SIDE] * (SIDE - 1) + [[1]]]}).encode()),
    } if of_images else {
        "CSV of other columns": upload("/score/file", "rows.csv", b"x,y\n1,2\n"),
        "wide CSV": upload("/score/file", "rows.csv", b"," * 5_000_000),
        "no Parquet": upload("/score/file", "rows.parquet", b"PAR1" + bytes(900) + b"PAR1"),
        "JSON for CSV": upload("/explain/file", "rows.csv", b'{"a": [1]}'),
    }  # fmt: skip
    return both | own


def documented(port: int, count: int, seed: int) -> Counter[int]:
    """Return the statuses of requests that schemathesis draws from the service's document."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    found: Counter[int] = Counter()
    for path in ("/score", "/explain", "/score/file", "/explain/file"):
        for mode in schemathesis.GenerationMode:
            case = document[path]["POST"].as_strategy(generation_mode=mode)

            @seeded(seed)
            @settings(
                max_examples=count // 8, deadline=None, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case)
            def ask(case: Any) -> None:
                found[case.call().status_code] += 1

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ask()
    return found


def under_attack(model: Path, of_images: bool, seed: int) -> None:
    rng, asks = np.random.default_rng(seed), written(of_images)
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    with service(model, "--seconds", str(SECONDS)) as (port, pid):

        def attack(count: int) -> None:
            for i in range(count):
                name = list(asks)[i % len(asks)]
                status = asks[name](port, rng)
                statuses[status] += 1
                faults.extend([name] if status >= 500 else [])

        attack(WARM_UP)
        documented(port, 40, seed)
        before = resident(pid)
        statuses.clear()
        statuses.update(documented(port, HOSTILE // 4, seed + 1))
        attack(HOSTILE // 2 - sum(statuses.values()))
        after = resident(pid)
        line = {
            "kind": "attack", "model": "images" if of_images else "table", "seed": seed,
            "requests": sum(statuses.values()),
            "statuses": {str(one): statuses[one] for one in sorted(statuses)},
            "faults": faults, "above_500": sum(n for one, n in statuses.items() if one >= 500),
            "rss_before_mib": round(before, 1), "rss_after_mib": round(after, 1),
            "health_ms": round(1000 * health(port), 1),
        }  # fmt: skip
    record.write(NAME, line)
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("load", "attack"))
    only = parser.parse_args().only
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        table, images = Path(folder, "table"), Path(folder, "images")
        R2AD2(random_state=0).fit(rng.normal(size=(1000, COLUMNS))).save(table)
        if only != "attack":
            under_load(table)
        if only != "load":
            pixels = rng.integers(0, 255, (100, SIDE, SIDE)).astype(np.uint8)
            GradCon(epochs=1, random_state=0).fit(pixels).save(images)
            under_attack(table, False, 0)
            under_attack(images, True, 1)


if __name__ == "__main__":
    main()
