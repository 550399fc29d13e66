"""The controller's connections, until they need a general HTTP server: plain connect requests are answered here.

`plane.controller.server` listens with it. aiohttp's server takes a quarter to a third of the processor time of a
connect; applications send little else, on connections that they keep. So a connection stays here as long as
`plane.decisions.http.fast_path_request` says that a plain ``POST /ctrl/connect`` has come, in one read or two. With the
first bytes that are anything else it goes to aiohttp, for good. What is answered is the same (decision 0009): access,
decoding, the steps of `connect`, errors and metrics are the functions that the application's endpoint uses.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache, partial
from typing import Any, TypeAlias, cast

from aiohttp.http import SERVER_SOFTWARE

from plane.controller.api.auth import refuse_foreign_pages, require_role
from plane.controller.api.connect import conclude, question, reused
from plane.controller.api.prometheus import Instruments
from plane.controller.api.request_deadlines import RequestDeadlines
from plane.controller.api.responses import decoded_body, error_answer
from plane.controller.context import Context
from plane.database.connect import Lookup, Question
from plane.decisions.access import Role
from plane.decisions.http.fast_path_request import FastPathRequest, read_fast_path_request
from plane.protocol import codec
from plane.protocol.control_api import ConnectRequest, ConnectResponse

__all__ = ["ConnectLane"]

# Many clients send head and body apart, one right after the other. Who takes longer is aiohttp's, as is a body in
# pieces: what is only half here is bounded there.
BODY_SOON_S = 1.0

_PATH = "/ctrl/connect"

_LookUp: TypeAlias = "asyncio.Future[Lookup] | asyncio.Future[Lookup | None]"


class ConnectLane:
    """All connections of a controller that aiohttp does not have.

    Args:
        context, instruments: the controller's.
        general: makes the protocol of a connection to aiohttp's server.
        deadlines: closes connections that send no request.
        keep_alive_s: a connection without a further request for so long is closed.
    """

    def __init__(
        self,
        context: Context,
        instruments: Instruments,
        general: Callable[[], asyncio.Protocol],
        deadlines: RequestDeadlines,
        keep_alive_s: float,
    ) -> None:
        self.deadlines = deadlines
        self.context = context
        self.instruments = instruments
        self.general = general
        self.keep_alive_s = keep_alive_s
        self.connections: set[_Connection] = set()

    def accept(self) -> asyncio.Protocol:
        """For `asyncio.loop.create_server`. With forward auth no request is plain: another server is asked first."""
        return self.general() if self.context.forward_auth is not None else _Connection(self)

    async def stop(self, grace_s: float) -> None:
        """Close all connections; requests under way get ``grace_s``. Nothing may be accepted any more."""
        for connection in tuple(self.connections):
            connection.close()
        try:
            async with asyncio.timeout(grace_s):
                while under_way := self._under_way():
                    await asyncio.wait(under_way)
        except TimeoutError:
            while late := self._under_way():
                for request in late:
                    request.cancel()
                await asyncio.wait(late)

    def _under_way(self) -> list[asyncio.Future[Any]]:
        return [connection.answering for connection in self.connections if connection.answering is not None]

    def answer(self, post: FastPathRequest, connection: _Connection) -> None:
        """The endpoint, and all around it in `plane.controller.app`; the answer is for `_Connection.answered`.

        A key that is held needs no task: what a task costs is a tenth of all that such a request does.
        """
        start = time.perf_counter()
        try:
            refuse_foreign_pages(post.source, self.context.source_rules)
            if self.context.api_keys is not None:
                require_role(self.context.api_keys, post.authorization, Role.CONNECT)
            request = decoded_body(post.body, ConnectRequest)
            asked = question(self.context, request)
        except Exception as error:
            connection.answered(self._refusal(error, start))
            return
        look_up = self.context.writes.first_trip(asked).put_soon(asked)
        self._go_on_after(look_up, connection, request, asked, start)

    def _go_on_after(
        self, look_up: _LookUp, connection: _Connection, request: ConnectRequest, asked: Question, start: float
    ) -> None:
        connection.answering = look_up
        look_up.add_done_callback(partial(self._looked_up, connection, request, asked, start))

    def _looked_up(
        self, connection: _Connection, request: ConnectRequest, asked: Question, start: float, look_up: _LookUp
    ) -> None:
        if look_up.cancelled():
            connection.abort()
            return
        try:
            found = look_up.result()
            if found is None:
                # It was held a moment ago.
                self._go_on_after(self.context.writes.look_ups.put_soon(asked), connection, request, asked, start)
                return
            answer = reused(self.context, request, asked, found)
        except Exception as error:
            connection.answered(self._refusal(error, start))
            return
        if answer is None:
            connection.answering = asyncio.create_task(self._conclude(connection, request, asked, start, found))
        else:
            connection.answered(self._success(answer, start))

    async def _conclude(
        self, connection: _Connection, request: ConnectRequest, asked: Question, start: float, found: Lookup
    ) -> None:
        try:
            answer = self._success(await conclude(self.context, request, asked, found), start)
        except asyncio.CancelledError:
            connection.abort()
            raise
        except Exception as error:
            answer = self._refusal(error, start)
        connection.answered(answer)

    def _success(self, answer: ConnectResponse, start: float) -> bytes:
        self.instruments.count("POST", _PATH, 200, time.perf_counter() - start)
        body = codec.encode(answer)
        return _head("200 OK", "Content-Type: application/json\r\n", len(body), int(time.time())) + body

    def _refusal(self, error: Exception, start: float) -> bytes:
        answer = error_answer(error, "POST", _PATH)
        self.instruments.count("POST", _PATH, answer.status, time.perf_counter() - start)
        body = answer.body if isinstance(answer.body, bytes) else b""
        fields = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        return _head(f"{answer.status} {answer.reason}", fields, len(body), int(time.time())) + body


class _Connection(asyncio.Protocol):
    """One of them. What comes while a request is being answered waits, and makes the connection aiohttp's."""

    __slots__ = (
        "_begun",
        "_closing",
        "_early",
        "_heard_at",
        "_lane",
        "_timer",
        "_transport",
        "_writing_paused",
        "answering",
    )

    def __init__(self, lane: ConnectLane) -> None:
        self._lane = lane
        # What is under way for its request, if anything is.
        self.answering: asyncio.Future[Any] | None = None
        self._begun: tuple[bytes, asyncio.TimerHandle] | None = None
        self._early = b""
        self._writing_paused = False
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # As aiohttp does: a peer that is gone without a word is noticed some time.
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        self._timer = loop.call_later(self._lane.keep_alive_s, self._close_if_idle)
        self._lane.connections.add(self)
        self._lane.deadlines.start(self._transport)

    def data_received(self, data: bytes) -> None:
        if self.answering is not None:
            self._early += data
            self._transport.pause_reading()
            return
        begun, self._begun = self._begun, None
        if begun is not None:
            begun[1].cancel()
            data = begun[0] + data
        request = None if self._writing_paused else read_fast_path_request(data)
        if request is None or request.path != _PATH:
            self._hand_over(data)
            return
        self._lane.deadlines.stop(self._transport)
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        if request.body:
            self._lane.answer(request, self)
        else:
            self._begun = data, loop.call_later(BODY_SOON_S, self._hand_over, data)

    def answered(self, answer: bytes) -> None:
        """Send it, and go on."""
        self.answering = None
        if self._transport.is_closing():
            self._lane.connections.discard(self)
            return
        self._transport.write(answer)
        if self._closing:
            self._transport.close()
        elif self._early:
            # In this order: aiohttp may want to pause reading itself.
            self._transport.resume_reading()
            self._hand_over(self._early)

    def abort(self) -> None:
        """Cut the connection: its request is not answered, since the controller's patience while it stops is over."""
        self.answering = None
        self._lane.connections.discard(self)
        self._transport.abort()

    def _hand_over(self, data: bytes) -> None:
        """The connection is aiohttp's from here on."""
        self._let_go()
        self._lane.connections.discard(self)
        general = self._lane.general()
        self._transport.set_protocol(general)
        general.connection_made(self._transport)
        if self._writing_paused:
            general.pause_writing()
        general.data_received(data)

    def _let_go(self) -> None:
        self._timer.cancel()
        if self._begun is not None:
            self._begun[1].cancel()

    def _close_if_idle(self) -> None:
        loop = asyncio.get_running_loop()
        left_s = self._heard_at + self._lane.keep_alive_s - loop.time()
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._close_if_idle)
        else:
            self._transport.close()

    def close(self) -> None:
        """Close the connection once its request, if there is one, has been answered."""
        self._closing = True
        if self.answering is None:
            self._transport.close()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        self._lane.deadlines.stop(self._transport)
        # What is under way goes on, as with aiohttp: the answer is not sent, what was asked for is done.
        if self.answering is None:
            self._lane.connections.discard(self)


# A second's answers have few lengths.
@lru_cache(maxsize=64)
def _head(status: str, fields: str, length: int, now_s: int) -> bytes:
    """As aiohttp would send it on a connection that stays open."""
    date = formatdate(now_s, usegmt=True)
    return (
        f"HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\nDate: {date}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n"
    ).encode()
