"""What every answer passes: it is counted and timed, gets its headers, and is refused where too many wait."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from anograd.serve import problems
from anograd.serve.limits import MOST_WAITING
from anograd.serve.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Served = Callable[[Message, Receive, Send], Awaitable[None]]

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Counted:
    """The service, counted.

    Parameters
    ----------
    app : callable
        The ASGI application within.
    metrics : Metrics
    """

    def __init__(self, app: Served, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        self.waiting = 0
        self.headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # what GET answers, of which the server sends the head alone
            scope = {**scope, "method": "GET"}
        start, status, posted = time.perf_counter(), 500, scope["method"] == "POST"
        state = scope.setdefault("state", {})

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        self.waiting += posted
        try:
            if posted and self.waiting > MOST_WAITING:
                refused = problems.response(429, f"{MOST_WAITING} requests wait already; try again")
                await refused(scope, receive, sending)
            else:
                await self.app(scope, receive, sending)
        finally:
            self.waiting -= posted
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.add(path, status, time.perf_counter() - start, state.get("rows", 0))
