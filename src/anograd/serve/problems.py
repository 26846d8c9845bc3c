"""What goes wrong, as one JSON problem: title, status, detail."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response

MOST_SAID = 2_000  # letters of a detail; what was given may be quoted in it


class Problem(Exception):
    """An answer with a status of 400 or more.

    Parameters
    ----------
    status : int
    detail : str
        What was given and what is wanted.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def response(status: int, detail: str) -> Response:
    """Return the problem as JSON, after RFC 9457."""
    if len(detail) > MOST_SAID:
        detail = detail[:MOST_SAID] + " ..."
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    again = {"Retry-After": "1"} if status == HTTPStatus.TOO_MANY_REQUESTS else None
    return Response(json.dumps(content), status, again, "application/problem+json")


async def _problem(_: Request, error: Any) -> Response:
    return response(error.status, error.detail)


async def _http(request: Request, error: Any) -> Response:
    said = {404: f"there is no {request.url.path}", 405: f"{request.method} is not for {request.url.path}"}
    told = response(error.status_code, said.get(error.status_code, str(error.detail)))
    told.headers.update(error.headers or {})
    return told


async def _fault(_: Request, __: Any) -> Response:
    return response(500, "the service failed at this request; its log says where")


# FastAPI looks them up by the error's class or status.
HANDLERS: dict[int | type[Exception], Any] = {
    Problem: _problem,
    **dict.fromkeys((400, 404, 405), _http),
    500: _fault,
}


def document() -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of problems."""
    properties = {"title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"}}
    content = {"application/problem+json": {"schema": {"type": "object", "properties": properties}}}
    said = {
        400: "A value that the detector refuses, with what is wanted",
        408: "The body did not come in time",
        413: "Too many rows or bytes, or rows that take too long",
        415: "A kind of body or file that is not read",
        422: "JSON of another shape than is wanted",
        429: "Others are before this one",
    }
    return {status: {"description": text, "content": content} for status, text in said.items()}
