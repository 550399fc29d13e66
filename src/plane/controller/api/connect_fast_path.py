"""Plain connect requests, handled without aiohttp: the protocol of every connection to the controller at first.

aiohttp's server takes a quarter to a third of the processor time of a connect, and applications send little else, on
persistent connections. A connection stays here as long as it sends plain ``POST /ctrl/connect`` requests, in one read
or two (`plane.decisions.http.fast_path_request`). The first bytes that are anything else hand it over to aiohttp for
good. Responses are the same on both paths (``docs/decisions/0009-connect-fast-path.md``): authorization, decoding,
`PendingConnect`, errors and metrics are the functions that the general endpoint uses.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, cast

from aiohttp.http import SERVER_SOFTWARE

from plane.controller.api.auth import refuse_foreign_pages, require_role
from plane.controller.api.connect import PendingConnect
from plane.controller.api.prometheus import Instruments
from plane.controller.api.request_deadlines import RequestDeadlines
from plane.controller.api.responses import ErrorResponses, decode_body
from plane.controller.context import Context
from plane.decisions.access import Role
from plane.decisions.http.fast_path_request import FastPathRequest, read_fast_path_request
from plane.protocol import codec
from plane.protocol.control_api import ConnectRequest, ConnectResponse

__all__ = ["ConnectFastPath"]

_PATH = "/ctrl/connect"


class ConnectFastPath:
    """All connections of a controller that were not handed over to aiohttp.

    Args:
        context, instruments, errors: the controller's.
        general: creates the protocol of a connection to aiohttp's server.
        deadlines: closes connections that send no request.
    """

    def __init__(
        self,
        context: Context,
        instruments: Instruments,
        errors: ErrorResponses,
        general: Callable[[], asyncio.Protocol],
        deadlines: RequestDeadlines,
    ) -> None:
        self.deadlines = deadlines
        self.context = context
        self.instruments = instruments
        self.general = general
        self.keep_alive_s = context.settings.limits.keep_alive_s
        # Many clients send head and body in two packets, one right after the other. A body that takes longer, or comes
        # in more pieces, is handed over: aiohttp bounds what is incomplete.
        self.body_timeout_s = context.settings.limits.fast_path_body_s
        self.connections: set[_Connection] = set()
        self._errors = errors

    def accept(self) -> asyncio.Protocol:
        """Return a protocol for `asyncio.loop.create_server`.

        With forward auth there is no fast path: every request waits for another server first.
        """
        return self.general() if self.context.forward_auth is not None else _Connection(self)

    async def stop(self, grace_s: float) -> None:
        """Close all connections; requests in flight get ``grace_s``. No more connections may be accepted."""
        for connection in tuple(self.connections):
            connection.close()
        try:
            async with asyncio.timeout(grace_s):
                while in_flight := self._in_flight():
                    await asyncio.wait(in_flight)
        except TimeoutError:
            while late := self._in_flight():
                for request in late:
                    request.cancel()
                await asyncio.wait(late)

    def _in_flight(self) -> list[asyncio.Future[Any]]:
        return [connection.pending.waits_for for connection in self.connections if connection.pending is not None]

    def start(self, post: FastPathRequest, finish: Callable[[ConnectResponse | BaseException], None]) -> PendingConnect:
        """Authorize, decode and start a request, like the middlewares of `plane.controller.app`.

        Raises:
            Exception: the request is refused; see `ErrorResponses.response`.
        """
        refuse_foreign_pages(post.source, self.context.source_rules)
        if self.context.api_keys is not None:
            require_role(self.context.api_keys, post.authorization, Role.CONNECT)
        return PendingConnect(self.context, decode_body(post.body, ConnectRequest), finish)

    def response(self, outcome: ConnectResponse | Exception, started_at: float) -> bytes:
        """Encode and count the response to a request that was received at ``started_at``."""
        if isinstance(outcome, ConnectResponse):
            self.instruments.count("POST", _PATH, 200, time.perf_counter() - started_at)
            body = codec.encode(outcome)
            return _head("200 OK", "Content-Type: application/json\r\n", len(body), int(time.time())) + body
        error = self._errors.response(outcome, "POST", _PATH)
        self.instruments.count("POST", _PATH, error.status, time.perf_counter() - started_at)
        body = error.body if isinstance(error.body, bytes) else b""
        fields = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items())
        return _head(f"{error.status} {error.reason}", fields, len(body), int(time.time())) + body


class _Connection(asyncio.Protocol):
    """One connection. Bytes that arrive during a request are queued, and hand the connection over to aiohttp."""

    __slots__ = (
        "_closing",
        "_incomplete",
        "_last_request_at",
        "_path",
        "_queued",
        "_started_at",
        "_timer",
        "_transport",
        "_writing_paused",
        "pending",
    )

    def __init__(self, path: ConnectFastPath) -> None:
        self._path = path
        # The request in flight.
        self.pending: PendingConnect | None = None
        # A head without its body, and the timer that hands the connection over.
        self._incomplete: tuple[bytes, asyncio.TimerHandle] | None = None
        self._queued = b""
        self._writing_paused = False
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Like aiohttp: the kernel's probes notice a peer that has vanished.
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        loop = asyncio.get_running_loop()
        self._last_request_at = loop.time()
        self._timer = loop.call_later(self._path.keep_alive_s, self._close_if_idle)
        self._path.connections.add(self)
        self._path.deadlines.start(self._transport)

    def data_received(self, data: bytes) -> None:
        if self.pending is not None:
            self._queued += data
            self._transport.pause_reading()
            return
        incomplete, self._incomplete = self._incomplete, None
        if incomplete is not None:
            incomplete[1].cancel()
            data = incomplete[0] + data
        post = None if self._writing_paused else read_fast_path_request(data)
        if post is None or post.path != _PATH:
            self._hand_over(data)
            return
        self._path.deadlines.stop(self._transport)
        loop = asyncio.get_running_loop()
        self._last_request_at = loop.time()
        if post.body:
            self._start(post)
        else:
            self._incomplete = data, loop.call_later(self._path.body_timeout_s, self._hand_over, data)

    def _start(self, post: FastPathRequest) -> None:
        self._started_at = time.perf_counter()
        try:
            self.pending = self._path.start(post, self._finish)
        except Exception as error:
            self._respond(error)

    def _finish(self, outcome: ConnectResponse | BaseException) -> None:
        self.pending = None
        if isinstance(outcome, ConnectResponse | Exception):
            self._respond(outcome)
        else:
            # Cancelled: the controller stops, and its grace period has expired.
            self._path.connections.discard(self)
            self._transport.abort()

    def _respond(self, outcome: ConnectResponse | Exception) -> None:
        """Send the response, and continue with the next request."""
        response = self._path.response(outcome, self._started_at)
        if self._transport.is_closing():
            self._path.connections.discard(self)
            return
        self._transport.write(response)
        if self._closing:
            self._transport.close()
        elif self._queued:
            # In this order: aiohttp may want to pause reading itself.
            self._transport.resume_reading()
            self._hand_over(self._queued)

    def _hand_over(self, data: bytes) -> None:
        """Pass the connection to aiohttp permanently."""
        self._cancel_timers()
        self._path.connections.discard(self)
        general = self._path.general()
        self._transport.set_protocol(general)
        general.connection_made(self._transport)
        if self._writing_paused:
            general.pause_writing()
        general.data_received(data)

    def _cancel_timers(self) -> None:
        self._timer.cancel()
        if self._incomplete is not None:
            self._incomplete[1].cancel()

    def _close_if_idle(self) -> None:
        loop = asyncio.get_running_loop()
        left_s = self._last_request_at + self._path.keep_alive_s - loop.time()
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._close_if_idle)
        else:
            self._transport.close()

    def close(self) -> None:
        """Close the connection, after the response if a request is in flight."""
        self._closing = True
        if self.pending is None:
            self._transport.close()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        self._path.deadlines.stop(self._transport)
        # A request in flight continues, as with aiohttp: it takes effect although its response is not sent.
        if self.pending is None:
            self._path.connections.discard(self)


# Within one second there are few distinct lengths.
@lru_cache(maxsize=64)
def _head(status: str, fields: str, length: int, now_s: int) -> bytes:
    """Return a response head as aiohttp would send it on a persistent connection."""
    date = formatdate(now_s, usegmt=True)
    return (
        f"HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\nDate: {date}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n"
    ).encode()
