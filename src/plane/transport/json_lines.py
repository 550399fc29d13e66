"""Lines of JSON over a Unix stream socket, between a drone and an external executor.

`LineClient` is the drone's end, which reconnects for ever; `serve_lines` starts the executor's. A request has an id
that its response repeats. Requests without a response fail with `RequestLost` when the connection breaks. The messages
are described in ``docs/reference/protocol/external-executor.md``.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import structlog
from msgspec import UNSET

from plane.decisions.retry import ReconnectBackoff
from plane.protocol import codec
from plane.protocol.errors import MessageError, PlaneError
from plane.protocol.executor_messages import (
    ExecutorRequest,
    ExecutorResponse,
    RequestLine,
    ResponseLine,
    refusal,
    refused_request,
    request_kind,
)
from plane.tasks import OwnedTasks
from plane.throttled_log import ThrottledWarning

__all__ = ["LineClient", "LineServer", "RequestLost", "serve_lines"]

RECONNECT_FIRST_S = 0.01
RECONNECT_FACTOR = 1.5
RECONNECT_CAP_S = 1.0
CONNECT_TIMEOUT_S = 30.0
# A peer that reads nothing for this long has vanished.
SEND_TIMEOUT_S = 10.0
# Executables may have a large environment.
MAX_LINE_BYTES = 16 * 1024 * 1024
# Concurrent requests of one connection; more are not read until some are done.
MAX_CONCURRENT_REQUESTS = 1_000
# Events that wait for a drone. Beyond the lower number metrics are dropped, since later ones replace them.
MAX_QUEUED_EVENTS = 10_000
MAX_QUEUED_METRICS = 1_000

log = structlog.get_logger("plane.transport")


class RequestLost(PlaneError):
    """There was no response to a request, which may or may not have been carried out."""


class LineClient:
    """A drone's connection to its executor. `run` must be running.

    Args:
        path: the executor's socket.
        on_event: called with each event of the executor.
        on_connected: called after each connection is established.
    """

    def __init__(
        self, path: Path, on_event: Callable[[ExecutorResponse], None], on_connected: Callable[[], None] = lambda: None
    ) -> None:
        self._path = path
        self._on_event = on_event
        self._on_connected = on_connected
        self._writer: asyncio.StreamWriter | None = None
        self._connected = asyncio.Event()
        self._pending: dict[str, asyncio.Future[ExecutorResponse]] = {}
        self._undecodable = ThrottledWarning(log, "line from the executor not decoded", path=str(path))

    async def request(self, request: ExecutorRequest, timeout_s: float) -> ExecutorResponse:
        """Send a request, after waiting for a connection if there is none, and return the response.

        Raises:
            RequestLost: there is no response, or none within ``timeout_s``.
        """
        request_id = secrets.token_urlsafe(32)
        try:
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
                writer = self._writer
                assert writer is not None
                response: asyncio.Future[ExecutorResponse] = asyncio.get_running_loop().create_future()
                self._pending[request_id] = response
                writer.write(codec.encode(RequestLine(request_id, request)) + b"\n")
                await writer.drain()
                return await response
        except TimeoutError:
            raise RequestLost(f"the executor at {self._path} did not respond within {timeout_s:g} s") from None
        except OSError as error:
            raise RequestLost(f"the connection to the executor at {self._path} broke: {error}") from error
        finally:
            self._pending.pop(request_id, None)

    async def run(self) -> None:
        """Connect, receive responses and events, and reconnect, until cancelled."""
        clock = asyncio.get_running_loop().time
        backoff = ReconnectBackoff(
            RECONNECT_FIRST_S, RECONNECT_FACTOR, RECONNECT_CAP_S, healthy_after_s=RECONNECT_CAP_S
        )
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    reader, writer = await asyncio.open_unix_connection(str(self._path), limit=MAX_LINE_BYTES)
            except (OSError, TimeoutError) as error:
                wait_s = backoff.ended(clock())
                if wait_s >= RECONNECT_CAP_S:
                    log.warning("executor not reached", path=str(self._path), error=str(error) or "no response in time")
                await asyncio.sleep(wait_s)
                continue
            log.info("connected to executor", path=str(self._path))
            backoff.connected(clock())
            self._writer = writer
            self._connected.set()
            self._on_connected()
            try:
                await self._receive(reader)
            except (OSError, ValueError) as error:
                log.warning("connection to the executor broken", path=str(self._path), error=str(error))
            finally:
                self._disconnected(writer)
            # The backoff also grows for an executor that accepts connections and drops them.
            await asyncio.sleep(backoff.ended(clock()))

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            try:
                response = codec.decode(line, ResponseLine)
            except MessageError as error:
                self._undecodable.warn(error=str(error))
                continue
            if response.id is None:
                self._on_event(response.message)
            elif (pending := self._pending.get(response.id)) and not pending.done():
                pending.set_result(response.message)

    def _disconnected(self, writer: asyncio.StreamWriter) -> None:
        self._connected.clear()
        self._writer = None
        writer.close()
        for pending in self._pending.values():
            if not pending.done():
                pending.set_exception(RequestLost(f"the connection to the executor at {self._path} broke"))


HandleRequest = Callable[[ExecutorRequest], Awaitable[ExecutorResponse]]


class LineServer:
    """The executor's end of the connection, for one drone at a time; `serve_lines` listens for it.

    Events are queued while no drone is connected.
    """

    def __init__(self, handle: HandleRequest) -> None:
        self._handle = handle
        self._events: asyncio.Queue[ExecutorResponse] = asyncio.Queue(MAX_QUEUED_EVENTS)
        self._one_drone = asyncio.Lock()
        self._undecodable = ThrottledWarning(log, "line from the drone not decoded")

    def send_event(self, event: ExecutorResponse) -> None:
        """Queue an event for the drone."""
        if event.metrics_message is not UNSET and self._events.qsize() >= MAX_QUEUED_METRICS:
            return
        if self._events.full():
            dropped = self._events.get_nowait()
            log.warning(
                "too many events are queued for the drone; dropping the oldest", kind=type(dropped.content).__name__
            )
        self._events.put_nowait(event)

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        async with self._one_drone:
            log.info("drone connected")
            tasks = OwnedTasks(lambda error: log.error("unexpected error in a connection to the drone", exc_info=error))
            tasks.start(self._send_events(writer))
            slots = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
            try:
                while line := await reader.readline():
                    try:
                        request = codec.decode(line, RequestLine)
                    except MessageError as error:
                        self._undecodable.warn(error=str(error))
                        if (refused := refused_request(line)) is not None:
                            request_id, kind = refused
                            response = refusal(kind, f"the executor cannot decode the request: {error}")
                            await _send(writer, ResponseLine(request_id, response))
                        continue
                    await slots.acquire()
                    tasks.start(self._respond(writer, request)).add_done_callback(lambda _: slots.release())
            except (OSError, ValueError) as error:
                log.warning("connection to the drone broken", error=str(error))
            except asyncio.CancelledError:
                # The program stops. asyncio's streams would log a cancelled task as an error.
                log.info("connection to the drone closed")
            finally:
                await tasks.end()
                writer.close()
                log.info("drone disconnected")

    async def _respond(self, writer: asyncio.StreamWriter, request: RequestLine) -> None:
        try:
            response = await self._handle(request.message)
        except Exception as error:
            # The drone waits for a response, although the error is a defect of this program.
            kind = request_kind(request.message)
            log.exception("unexpected error in a request of the drone", kind=kind)
            response = refusal(kind, f"internal error of the executor: {error!r}; its log has the details")
        with suppress(OSError, TimeoutError):
            await _send(writer, ResponseLine(request.id, response))

    async def _send_events(self, writer: asyncio.StreamWriter) -> None:
        while True:
            event = await self._events.get()
            try:
                await _send(writer, ResponseLine(None, event))
            except (OSError, TimeoutError):
                # It may not have been received. The next drone may receive it twice.
                self.send_event(event)
                writer.close()
                return


async def _send(writer: asyncio.StreamWriter, line: ResponseLine) -> None:
    writer.write(codec.encode(line) + b"\n")
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await writer.drain()


async def serve_lines(path: Path, server: LineServer) -> asyncio.Server:
    """Listen at ``path``, for this user only. An orphaned socket of a former process is removed.

    Raises:
        OSError: another process listens there, or the socket cannot be created.
    """
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        try:
            _, writer = await asyncio.open_unix_connection(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        else:
            writer.close()
            raise FileExistsError(f"another executor listens at {path}")
    mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(server.serve_connection, str(path), limit=MAX_LINE_BYTES)
    finally:
        os.umask(mask)
