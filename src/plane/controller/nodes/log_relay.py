"""Asks one connected drone for output of its backends, for whichever controller wants it. `nodes.drone` runs it."""

from __future__ import annotations

import asyncio

import structlog

from plane.controller.context import Context
from plane.database import log_requests
from plane.database.event_bus import Subscription
from plane.protocol import codec
from plane.protocol.drone_messages import MessageFromDrone, MessageToDrone
from plane.protocol.errors import MessageError
from plane.protocol.handshake import Extension
from plane.protocol.logs import LogPage, LogsRead, ReadLogs
from plane.tasks import run_together
from plane.transport.node_socket import NodeSocket

__all__ = ["LogRelay"]

# Answers that wait to be passed on. What is beyond that is dropped, and asked for again by whoever wants it.
ANSWERS_LIMIT = 500

log = structlog.get_logger("plane.controller")


class LogRelay:
    """Questions to, and answers of, one drone. `run` must be running."""

    def __init__(
        self, context: Context, socket: NodeSocket[MessageFromDrone, MessageToDrone], wanted: Subscription
    ) -> None:
        self._db = context.db
        self._socket = socket
        self._wanted = wanted
        self._answers: asyncio.Queue[LogsRead] = asyncio.Queue(ANSWERS_LIMIT)

    def answered(self, read: LogsRead) -> None:
        """The drone has answered. Never waits: what else the drone says is more urgent."""
        if self._answers.full():
            log.warning("a drone's answer for logs is dropped: too many wait", drone=self._socket.peer.name)
        else:
            self._answers.put_nowait(read)

    async def run(self) -> None:
        """Ask and pass on, until the connection ends."""
        await run_together(self._ask(), self._pass_on())

    async def _ask(self) -> None:
        async for event in self._wanted:
            try:
                request = codec.convert(event.payload, ReadLogs)
            except MessageError as error:
                log.warning("question for logs not understood", error=str(error))
                continue
            if self._socket.peer.understands(Extension.LOGS):
                await self._socket.send(MessageToDrone(read_logs=request))
            else:
                why = f"drone {self._socket.peer.name} is of a version that gives no logs; look on its machine"
                self.answered(LogsRead(request.request_id, LogPage([], ended=True), why))

    async def _pass_on(self) -> None:
        while True:
            await log_requests.answer(self._db, await self._answers.get())
