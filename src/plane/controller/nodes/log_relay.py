"""Relays log requests of all controllers to one connected drone, and its responses back. `nodes.drone` runs it."""

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

# Responses that wait for the database. Further ones are dropped; their readers request them again.
MAX_QUEUED_RESPONSES = 500

log = structlog.get_logger("plane.controller")


class LogRelay:
    """Log requests and responses of one drone. `run` must be running."""

    def __init__(
        self, context: Context, socket: NodeSocket[MessageFromDrone, MessageToDrone], requests: Subscription
    ) -> None:
        self._db = context.db
        self._socket = socket
        self._requests = requests
        self._responses: asyncio.Queue[LogsRead] = asyncio.Queue(MAX_QUEUED_RESPONSES)

    def on_response(self, read: LogsRead) -> None:
        """Queue a response of the drone. Never waits: the drone's other messages are more urgent."""
        if self._responses.full():
            log.warning("log response of a drone dropped: too many are queued", drone=self._socket.peer.name)
        else:
            self._responses.put_nowait(read)

    async def run(self) -> None:
        """Relay requests and responses until the connection ends."""
        await run_together(self._relay_requests(), self._relay_responses())

    async def _relay_requests(self) -> None:
        async for event in self._requests:
            try:
                request = codec.convert(event.payload, ReadLogs)
            except MessageError as error:
                log.warning("log request not decoded", error=str(error))
                continue
            if self._socket.peer.supports(Extension.LOGS):
                await self._socket.send(MessageToDrone(read_logs=request))
            else:
                reason = f"drone {self._socket.peer.name} does not support log requests; read the logs on its machine"
                self.on_response(LogsRead(request.request_id, LogPage([], ended=True), reason))

    async def _relay_responses(self) -> None:
        while True:
            await log_requests.respond(self._db, await self._responses.get())
