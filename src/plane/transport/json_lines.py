"""Lines of JSON over a Unix stream socket, between a drone and an external executor (page 2, "External executor").

`LineClient` is the drone's end, which connects again for ever; `serve_lines` is the executor's. A request has an id and
its answer repeats it. What was asked and not answered when the connection breaks is lost, and its asker told so.
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

from plane.protocol import codec
from plane.protocol.errors import MessageError, PlaneError
from plane.protocol.executor_messages import (
    ExecutorAnswer,
    ExecutorLine,
    ExecutorQuestion,
    ExecutorRequest,
    kind_of_request,
    refusal,
    refused_request,
)
from plane.tasks import OwnedTasks
from plane.throttled_log import ThrottledWarning

__all__ = ["LineClient", "LineLost", "LineServer", "serve_lines"]

RECONNECT_FIRST_S = 0.01
RECONNECT_FACTOR = 1.5
RECONNECT_CAP_S = 1.0
CONNECT_LIMIT_S = 30.0
# A peer that reads nothing for this long is gone.
SEND_LIMIT_S = 10.0
# Executables with a large environment.
LINE_LIMIT_BYTES = 16 * 1024 * 1024
# Requests of one connection that are worked on at the same time; more are not read until some are done.
REQUESTS_LIMIT = 1_000
# Events that wait for a drone, and from how many on metrics are dropped: the next ones say more.
EVENTS_LIMIT = 10_000
METRICS_LIMIT = 1_000

log = structlog.get_logger("plane.transport")


class LineLost(PlaneError):
    """The connection broke before there was an answer: it may have been done, or not."""


class LineClient:
    """A drone's connection to its executor. `run` must be running.

    Args:
        path: the executor's socket.
        on_event: called with what the executor says by itself.
        on_connected: called after each connection is made.
    """

    def __init__(
        self, path: Path, on_event: Callable[[ExecutorAnswer], None], on_connected: Callable[[], None] = lambda: None
    ) -> None:
        self._path = path
        self._on_event = on_event
        self._on_connected = on_connected
        self._writer: asyncio.StreamWriter | None = None
        self._connected = asyncio.Event()
        self._asked: dict[str, asyncio.Future[ExecutorAnswer]] = {}
        self._not_understood = ThrottledWarning(log, "line of the executor not understood", path=str(path))

    async def ask(self, request: ExecutorRequest, limit_s: float) -> ExecutorAnswer:
        """The executor's answer; waits for a connection first, if there is none.

        Raises:
            LineLost: no answer, or none within ``limit_s``.
        """
        number = secrets.token_urlsafe(32)
        try:
            async with asyncio.timeout(limit_s):
                await self._connected.wait()
                writer = self._writer
                assert writer is not None
                answer: asyncio.Future[ExecutorAnswer] = asyncio.get_running_loop().create_future()
                self._asked[number] = answer
                writer.write(codec.encode(ExecutorQuestion(number, request)) + b"\n")
                await writer.drain()
                return await answer
        except TimeoutError:
            raise LineLost(f"the executor at {self._path} did not answer within {limit_s:g} s") from None
        except OSError as error:
            raise LineLost(f"the executor at {self._path} is gone: {error}") from error
        finally:
            self._asked.pop(number, None)

    async def run(self) -> None:
        """Connect, hear answers and events, connect again; until cancelled."""
        clock = asyncio.get_running_loop().time
        wait_s = RECONNECT_FIRST_S
        while True:
            try:
                async with asyncio.timeout(CONNECT_LIMIT_S):
                    reader, writer = await asyncio.open_unix_connection(str(self._path), limit=LINE_LIMIT_BYTES)
            except (OSError, TimeoutError) as error:
                if wait_s >= RECONNECT_CAP_S:
                    log.warning("executor not reached", path=str(self._path), error=str(error) or "no answer in time")
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * RECONNECT_FACTOR, RECONNECT_CAP_S)
                continue
            log.info("connected to executor", path=str(self._path))
            connected_at = clock()
            self._writer = writer
            self._connected.set()
            self._on_connected()
            try:
                await self._hear(reader)
            except (OSError, ValueError) as error:
                log.warning("connection to executor broken", path=str(self._path), error=str(error))
            finally:
                self._lost(writer)
            # One that takes connections and drops them is asked ever more seldom, too.
            lasted = clock() - connected_at >= RECONNECT_CAP_S
            wait_s = RECONNECT_FIRST_S if lasted else min(wait_s * RECONNECT_FACTOR, RECONNECT_CAP_S)
            await asyncio.sleep(wait_s)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            try:
                said = codec.decode(line, ExecutorLine)
            except MessageError as error:
                self._not_understood.warn(error=str(error))
                continue
            if said.id is None:
                self._on_event(said.message)
            elif (waiting := self._asked.get(said.id)) and not waiting.done():
                waiting.set_result(said.message)

    def _lost(self, writer: asyncio.StreamWriter) -> None:
        self._connected.clear()
        self._writer = None
        writer.close()
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(LineLost(f"the connection to the executor at {self._path} broke"))


AnswerRequest = Callable[[ExecutorRequest], Awaitable[ExecutorAnswer]]


class LineServer:
    """The executor's end: one drone at a time. `serve_lines` makes one.

    Events that no drone is there to hear wait for the next one.
    """

    def __init__(self, answer: AnswerRequest) -> None:
        self._answer = answer
        self._events: asyncio.Queue[ExecutorAnswer] = asyncio.Queue(EVENTS_LIMIT)
        self._turn = asyncio.Lock()
        self._not_understood = ThrottledWarning(log, "line of the drone not understood")

    def tell(self, event: ExecutorAnswer) -> None:
        """Say something that was not asked for."""
        if event.metrics_message is not UNSET and self._events.qsize() >= METRICS_LIMIT:
            return
        if self._events.full():
            dropped = self._events.get_nowait()
            log.warning("no drone hears; the oldest event is dropped", kind=type(dropped.content).__name__)
        self._events.put_nowait(event)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        async with self._turn:
            log.info("drone connected")
            tasks = OwnedTasks(lambda error: log.error("request not answered", exc_info=error))
            tasks.start(self._tell_all(writer))
            slots = asyncio.Semaphore(REQUESTS_LIMIT)
            try:
                while line := await reader.readline():
                    try:
                        question = codec.decode(line, ExecutorQuestion)
                    except MessageError as error:
                        self._not_understood.warn(error=str(error))
                        if (refused := refused_request(line)) is not None:
                            number, kind = refused
                            answer = refusal(kind, f"the executor does not understand the request: {error}")
                            await _send(writer, ExecutorLine(number, answer))
                        continue
                    await slots.acquire()
                    tasks.start(self._reply(writer, question)).add_done_callback(lambda _: slots.release())
            except (OSError, ValueError) as error:
                log.warning("connection to drone broken", error=str(error))
            except asyncio.CancelledError:
                # This program ends. The callback of asyncio's streams logs a task that was cancelled as an error.
                log.info("connection to drone closed")
            finally:
                await tasks.end()
                writer.close()
                log.info("drone left")

    async def _reply(self, writer: asyncio.StreamWriter, question: ExecutorQuestion) -> None:
        try:
            answer = await self._answer(question.message)
        except Exception as error:
            # A drone waits for an answer; what went wrong is a defect of this program.
            kind = kind_of_request(question.message)
            log.exception("request of the drone failed in an unforeseen way", kind=kind)
            answer = refusal(kind, f"internal error of the executor: {error!r}; its log tells more")
        with suppress(OSError, TimeoutError):
            await _send(writer, ExecutorLine(question.id, answer))

    async def _tell_all(self, writer: asyncio.StreamWriter) -> None:
        while True:
            event = await self._events.get()
            try:
                await _send(writer, ExecutorLine(None, event))
            except (OSError, TimeoutError):
                # It was not heard for certain; the next drone may hear it twice.
                self.tell(event)
                writer.close()
                return


async def _send(writer: asyncio.StreamWriter, line: ExecutorLine) -> None:
    writer.write(codec.encode(line) + b"\n")
    async with asyncio.timeout(SEND_LIMIT_S):
        await writer.drain()


async def serve_lines(path: Path, server: LineServer) -> asyncio.Server:
    """Listen at ``path``, for this user only. A socket that a former process left there is removed.

    Raises:
        OSError: another process listens there, or it cannot be made.
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
        return await asyncio.start_unix_server(server.connected, str(path), limit=LINE_LIMIT_BYTES)
    finally:
        os.umask(mask)
