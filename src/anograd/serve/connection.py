"""One connection to the service, which nobody can keep waiting for ever."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from anograd.serve.limits import MOST_CONNECTED, PATIENCE


class Connection(H11Protocol):
    """A connection of Uvicorn's that is cut off where its sender is too slow, or there are too many.

    Uvicorn itself waits for ever for the head of a request, for the rest of a body that was answered before
    its end, and for an answer to be taken.
    """

    waiting = ""  # for what
    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of the first request."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTED:
            transport.abort()
        self._look()

    def data_received(self, data: bytes) -> None:
        """Take what the sender sent."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Begin to wait for what comes after an answer."""
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._wait("")
        super().connection_lost(exc)

    def _look(self) -> None:
        """Wait for what the sender owes now."""
        theirs = self.conn.their_state
        if self.transport.get_write_buffer_size():
            self._wait("answer")
        elif theirs is h11.SEND_BODY and self.cycle.response_complete:
            self._wait("rest")
        else:
            self._wait("head" if theirs is h11.IDLE else "")

    def _wait(self, what: str) -> None:
        if what == self.waiting:
            return
        if self.timer is not None:
            self.timer.cancel()
        self.waiting = what
        self.timer = self.loop.call_later(PATIENCE[what], self._give_up) if what else None

    def _give_up(self) -> None:
        if self.waiting != "answer" or self.transport.get_write_buffer_size():
            self.transport.abort()
