"""The HTTP service: its routes, one turn at a time for the network, and nothing that hangs on the sender."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from importlib.util import find_spec
from typing import Any

import torch
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from anograd import store
from anograd._version import __version__
from anograd.costs import pair
from anograd.detectors import Detector, load
from anograd.detectors.rows import RAW
from anograd.serve import answers, problems, schemas
from anograd.serve.counting import Counted
from anograd.serve.limits import Limits
from anograd.serve.metrics import Metrics
from anograd.serve.problems import Problem
from anograd.serve.rows import RULES, Rows, read_body
from anograd.serve.schemas import FILES, SCORED
from anograd.serve.uploads import File, read_files

# Where the workers of one service find the model, which one it is, and its limits.
MODEL, WHICH, LIMITS = "ANOGRAD_SERVE_MODEL", "ANOGRAD_SERVE_WHICH", "ANOGRAD_SERVE_LIMITS"
READ: dict[str, Callable[[str], Any]] = {"alpha": float, "fdr": float, "budget": int, "costs": pair}
MOST_FILES, MOST_FIELDS = 1_000, 10
Work = Callable[[], dict[str, Any]]


def app(detector: Detector, limits: Limits | None = None) -> FastAPI:
    """Return the service for one fitted detector, to be run by any ASGI server.

    Parameters
    ----------
    detector : Detector
        Fitted.
    limits : Limits, optional

    Raises
    ------
    ImportError
        The model is one of tables, and polars is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from anograd import GradCon
    >>> rows = np.random.default_rng(0).normal(size=(40, 3))
    >>> sorted(app(GradCon(epochs=1, random_state=0).fit(rows)).openapi()["paths"])
    ['/', '/explain', '/explain/file', '/health', '/info', '/metrics', '/score', '/score/file']
    """
    if detector.encoder_.table is not None and find_spec("polars") is None:
        raise ImportError("serving a model of tables needs polars: pip install 'anograd[tables]'")
    return Service(detector, limits or Limits()).app()


def factory() -> FastAPI:
    """Return the service for the model that the environment names, for a server with several workers."""
    folder = os.environ[MODEL]
    if store.fingerprint(folder) != os.environ[WHICH]:  # this worker takes the place of one that died
        logging.getLogger("uvicorn.error").warning(
            "%s holds another model than when the service began, which its other workers still serve: start "
            "the service anew", folder,
        )  # fmt: skip
    return app(load(folder), Limits.from_text(os.environ[LIMITS]))


class Service:
    """A detector, whose turn it is, and what was counted.

    Parameters
    ----------
    detector : Detector
    limits : Limits
    """

    def __init__(self, detector: Detector, limits: Limits) -> None:
        self.detector, self.limits = detector, limits
        self.metrics = Metrics()
        # One thread: what a pass records belongs to the network, and torch shares out a pass by itself.
        self.turns = ThreadPoolExecutor(1, "anograd-score")

    def app(self) -> FastAPI:
        """Return the routes."""
        made = FastAPI(
            title="anograd", version=__version__, exception_handlers=problems.HANDLERS, docs_url=None,
            redoc_url=None, redirect_slashes=False,
            description="Anomaly scores from the gradients that rows would cause.",
        )  # fmt: skip
        page = resources.files("anograd.serve").joinpath("page.html").read_text(encoding="utf-8")
        info = answers.about(self.detector, self.limits)
        rows = schemas.body(self.detector, self.limits)

        @made.get("/", response_class=Response, responses={200: {"content": {"text/html": {}}}})
        async def page_to_try() -> Response:
            """Return a page to try the model by hand."""
            return Response(page, media_type="text/html; charset=utf-8")

        @made.get("/health")
        async def health() -> dict[str, Any]:
            """Say that the model is loaded."""
            return {"ready": True, "model": info["model"], "version": __version__}

        @made.get("/info")
        async def what_it_takes() -> dict[str, Any]:
            """Say what the model is, what a row looks like, and what one request may hold."""
            return info

        @made.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
        async def metrics() -> Response:
            """Return counts since this process started, in Prometheus' text format."""
            return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

        said: dict[str, Any] = {"responses": SCORED | problems.document(), "response_class": Response}

        @made.post("/score", openapi_extra=rows, **said)
        async def score(request: Request) -> Response:
            """Score rows: the score (high = anomalous), p value and verdict of each."""
            return await self.answer(request, answers.scored)

        @made.post("/explain", openapi_extra=rows, **said)
        async def explain(request: Request) -> Response:
            """Score rows, and say what each column or pixel, the loss and each layer contribute."""
            return await self.answer(request, answers.explained)

        @made.post("/score/file", openapi_extra=FILES, **said)
        async def score_file(request: Request) -> Response:
            """Score the rows of a CSV, Parquet or NPY file, or images (PNG, JPEG)."""
            return await self.answer_files(request, lambda *rows: answers.scored(*rows[:3]), RULES)

        @made.post("/explain/file", openapi_extra=FILES, **said)
        async def explain_file(request: Request) -> Response:
            """Score the rows of a file or images, and say why; ``rows=0,3`` chooses rows."""
            return await self.answer_files(request, answers.explained, (*RULES, "rows"))

        made.add_middleware(Counted, metrics=self.metrics)
        return made

    async def answer(self, request: Request, work: Callable[..., dict[str, Any]]) -> Response:
        """Return what a function makes of the rows in a JSON body."""
        _check_query(request)
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Problem(415, f"the body is called {kind[:100]!r}; application/json is wanted")
        if (coding := request.headers.get("content-encoding", "identity").strip().lower()) != "identity":
            raise Problem(415, f"the body is said to be coded as {coding[:100]!r}; plain JSON is wanted")
        body = await self._body(request)

        def todo() -> dict[str, Any]:
            return work(self.detector, *read_body(body, self.detector, self.limits))

        return await self._in_turn(request, todo)

    async def answer_files(
        self, request: Request, work: Callable[..., dict[str, Any]], known: Sequence[str]
    ) -> Response:
        """Return what a function makes of the rows in uploaded files, and of the fields known to it."""
        _check_query(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise Problem(415, f"the body is called {kind[:100]!r}; a form is wanted: multipart/form-data")
        body = await self._body(request)

        async def again() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        files, fields = await _form(Request(request.scope, again), known)
        rule = _rule(fields)
        index = _index(fields.get("rows"))

        def todo() -> dict[str, Any]:
            rows: Rows = read_files(files, self.detector, self.limits)
            return work(self.detector, rows, rule, index)

        return await self._in_turn(request, todo)

    async def _body(self, request: Request) -> bytes:
        """Return the whole body, if it is small enough and comes in time."""
        most = self.limits.bytes
        too_large = Problem(413, f"the body is larger than {most:,} bytes; send the rows in pieces")
        told = request.headers.get("content-length", "")
        if told.isdecimal() and (len(told) > 18 or int(told) > most):
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.seconds):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Problem(408, f"the body did not come within {self.limits.seconds:g} seconds") from None
        except ClientDisconnect:  # nobody reads this, but it is counted
            raise Problem(400, "the sender went away before the end of the body") from None
        return bytes(body)

    async def _in_turn(self, request: Request, todo: Work) -> Response:
        """Return the answer of some work, which is done in a thread when its turn comes."""
        begun = math.inf

        def work() -> tuple[int, bytes]:
            nonlocal begun
            begun = time.monotonic()
            found = self._refused_in_words(todo)
            return found["rows"], answers.dumps(found)

        future = asyncio.wrap_future(self.turns.submit(work))
        try:
            rows, content = await asyncio.wait_for(future, self.limits.seconds)
        except TimeoutError:  # what has begun ends by itself, what has not never begins
            longer = "these rows take longer: send fewer, or serve with a larger --seconds"
            alone = time.monotonic() - begun > self.limits.seconds / 2  # else it mostly waited
            why = longer if alone else "other requests are before it: try again"
            raise Problem(
                413 if alone else 429, f"no answer within {self.limits.seconds:g} seconds; {why}"
            ) from None
        request.state.rows = rows
        return Response(content, media_type="application/json")

    def _refused_in_words(self, todo: Work) -> dict[str, Any]:
        """Return what some work gives; what the library refuses becomes a problem in its own words."""
        try:
            return todo()
        except (MemoryError, torch.OutOfMemoryError):
            raise Problem(413, "the rows do not fit into memory; send them in pieces") from None
        except (ValueError, TypeError, OverflowError, FloatingPointError) as error:
            raise Problem(400, " ".join(str(error).split()) or "the rows were refused") from error
        except RuntimeError as error:
            if self.detector.encoder_.kind != RAW:
                raise
            said = "the network refuses the rows; 1.0 is a real number to it, and 1 a whole one: "
            raise Problem(400, said + " ".join(str(error).split())) from error


def _check_query(request: Request) -> None:
    """Refuse what nobody would read, such as ?alpha=0.01."""
    if request.url.query:
        said = f"?{request.url.query[:100]} was given in the address; it belongs into the body, with the rows"
        raise Problem(422, said)


async def _form(request: Request, known: Sequence[str]) -> tuple[list[File], dict[str, str]]:
    """Return the files of a form, and its other fields."""
    files: list[File] = []
    fields: dict[str, str] = {}
    async with request.form(max_files=MOST_FILES, max_fields=MOST_FIELDS) as form:
        for name, value in form.multi_items():
            if isinstance(value, str):
                if name not in known:
                    wanted = ", ".join(("file", *known))
                    raise Problem(422, f"the field {name[:100]!r} is not known; wanted are {wanted}")
                if name in fields:
                    raise Problem(422, f"the field {name!r} was given twice; it is wanted once")
                fields[name] = value
            elif name != "file":
                raise Problem(422, f"a file came in the field {name[:100]!r}; the field is called file")
            else:
                files.append((value.filename or "", await value.read()))
    return files, fields


def _rule(fields: dict[str, str]) -> dict[str, Any]:
    """Return the rule that the fields of a form ask for; empty ones count as left out."""
    rule: dict[str, Any] = {}
    for name in RULES:
        text = fields.get(name, "").strip()
        if not text:
            continue
        try:
            rule[name] = READ[name](text)
        except ValueError:
            wanted = {"costs": "two numbers, such as 1:50", "budget": "a whole number of rows"}
            said = f"{name}={text[:100]!r} was given; wanted: {wanted.get(name, 'a number')}"
            raise Problem(422, said) from None
    return rule


def _index(text: str | None) -> list[int] | None:
    """Return the rows that somebody asked for."""
    if text is None or not text.strip():
        return None
    try:
        found = [int(one) for one in text.split(",")]
    except ValueError:
        raise Problem(422, f"rows={text[:100]!r}: whole numbers with commas between, 3,17") from None
    if max(found) > 2**31 or min(found) < 0:
        raise Problem(400, f"rows={text[:100]!r}: there are no such rows")
    return found
