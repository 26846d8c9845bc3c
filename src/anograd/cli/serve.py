"""``anograd serve``: a small HTTP service and a page to try a saved detector."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Annotated, Any

import typer

from anograd import store
from anograd.cli.options import Model, option
from anograd.detectors import load

BACKLOG = 256
GRACE = 5  # seconds that open requests have to end in, beyond those that their rows may take
STARTING = 120  # seconds that a worker may take to load a model on a busy machine


def serve(
    model: Model,
    host: Annotated[
        str, option("The address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, option("0 takes a free one.", min=0, max=65535)] = 8000,
    most_rows: Annotated[int, option("Rows in one request.", min=1)] = 10_000,
    most_bytes: Annotated[str, option("Size of one request, such as 20MB.")] = "20MB",
    seconds: Annotated[float, option("For an answer, and for the body to arrive.", min=0.1)] = 30,
    workers: Annotated[int, option("Processes; each loads the model and counts its own metrics.", min=1)] = 1,
) -> None:
    """Serve a model over HTTP, with a page to try it; Ctrl-C ends it.

    There is no password and no encryption: beyond this machine it belongs behind a proxy that has both.
    """
    from anograd.serve import Limits, app, uvicorn
    from anograd.serve.connection import Connection
    from anograd.serve.service import LIMITS, MODEL, WHICH

    limits = Limits.of(most_rows, most_bytes, seconds)
    served = app(load(model), limits)  # before the port is taken: a wrong model is one line
    settings: dict[str, Any] = {
        "log_level": "warning", "access_log": False, "server_header": False, "lifespan": "off",
        "timeout_graceful_shutdown": limits.seconds + GRACE, "http": Connection,
    }  # fmt: skip
    listening = _listening(host, port)
    name, number = listening.getsockname()[:2]
    shown = f"[{name}]" if ":" in name else name
    typer.echo(f"{model} is served at http://{shown}:{number}/ ; Ctrl-C ends it", err=True)
    with contextlib.suppress(KeyboardInterrupt), listening:  # the usual end, once open requests are answered
        if workers == 1:
            uvicorn.Server(uvicorn.Config(served, **settings)).run([listening])
            return
        os.environ |= {MODEL: str(model.resolve()), WHICH: store.fingerprint(model), LIMITS: limits.to_text()}
        # One that has not begun to answer within 5 seconds would be killed and started anew, again and again.
        settings["timeout_worker_healthcheck"] = STARTING
        uvicorn.run("anograd.serve:factory", factory=True, fd=listening.fileno(), workers=workers, **settings)


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that is bound already, so that a port in use is one line."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(
            error.errno, f"{host}, port {port}: {_reason(error)}; give another --port or --host"
        ) from error
    # The head of an answer and its body are two small packets, and the second would wait 40 ms for a receipt.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _reason(error: OSError) -> str:
    """Return the reason without the address, which Python adds to it."""
    return (error.strerror or str(error)).partition(" (while")[0]
