"""A drone's session with a controller: heartbeats, events until acknowledged, actions, renewals, metrics.

One per connection; `plane.transport.node_socket` makes the connections. Rule: page 4, "On connect".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from msgspec import UNSET, UnsetType

from plane import timing
from plane.drone.backend_manager import BackendManager
from plane.drone.clock import DroneClock
from plane.drone.event_recorder import EventRecorder
from plane.drone.state_store import Listener, StateStore
from plane.protocol.drone_messages import (
    AckAction,
    AckEvent,
    BackendAction,
    BackendEvent,
    BackendMetrics,
    Heartbeat,
    MessageFromDrone,
    MessageToDrone,
    RenewKey,
    RenewKeyResponse,
    Stopping,
)
from plane.protocol.handshake import Extension
from plane.protocol.logs import LogPage, LogsRead, ReadLogs
from plane.runtime.logs.collector import LogsUnavailable
from plane.tasks import OwnedTasks, run_together
from plane.transport.node_socket import NodeSocket, SocketClosed

__all__ = ["Agent"]

DroneSocket = NodeSocket[MessageToDrone, MessageFromDrone]

# Events that wait to be sent on one connection. Beyond that it is too slow, and is made anew; none is lost.
OUTBOX_LIMIT = 100_000
# Metrics that wait likewise. Beyond that they are dropped: the next ones say more.
METRICS_LIMIT = 2_000
# Acknowledgements likewise: an action that is not acknowledged comes again.
ACKS_LIMIT = 10_000
# How many may wait for output at the same time, and for how long at most.
LOG_READERS_LIMIT = 200
LOGS_WAIT_LIMIT_S = 60.0

log = structlog.get_logger("plane.drone")


class Agent:
    """Serves the connections of one drone, one at a time."""

    def __init__(self, store: StateStore, recorder: EventRecorder, executor: BackendManager, clock: DroneClock) -> None:
        self._store = store
        self._recorder = recorder
        self._executor = executor
        self._clock = clock
        self._socket: DroneSocket | None = None
        self._metrics: asyncio.Queue[BackendMetrics] = asyncio.Queue(METRICS_LIMIT)
        # To be sent on the connection that there is; None without one.
        self._acks: asyncio.Queue[str] | None = None
        self._log_readers = 0

    def measured(self, metrics: BackendMetrics) -> None:
        """The runtime has measured a backend. Told to the controller, if there is one now."""
        if self._socket is not None and not self._metrics.full():
            self._metrics.put_nowait(metrics)

    async def announce_stopping(self) -> None:
        """Tell the controller, if it understands that, that this drone takes no more work (A14)."""
        if self._socket is not None and self._socket.peer.supports(Extension.STOPPING):
            with suppress(SocketClosed):
                await self._socket.send(MessageFromDrone(stopping=Stopping()))

    async def session(self, socket: DroneSocket) -> None:
        """Serve one connection to its end."""
        outbox: asyncio.Queue[BackendEvent] = asyncio.Queue(OUTBOX_LIMIT)
        overflowed = asyncio.Event()
        # One for each key at most: it is asked for again when it is answered, or on the next connection.
        renewals: asyncio.Queue[RenewKey] = asyncio.Queue()
        acks = self._acks = asyncio.Queue(ACKS_LIMIT)

        def listener(event: BackendEvent) -> None:
            try:
                outbox.put_nowait(event)
            except asyncio.QueueFull:
                overflowed.set()

        try:
            self._executor.keys.connected(renewals.put_nowait)
            self._socket = socket
            await run_together(
                self._beat(socket),
                self._send_events(socket, outbox, listener),
                self._send_renewals(socket, renewals),
                self._send_acks(socket, acks),
                self._send_metrics(socket),
                self._hear(socket),
                _until_set(overflowed),
            )
        finally:
            self._socket = None
            self._acks = None
            self._executor.keys.disconnected()
            self._store.remove_listener(listener)

    async def _beat(self, socket: DroneSocket) -> None:
        while True:
            await socket.send(MessageFromDrone(heartbeat=Heartbeat(self._clock.now())))
            await asyncio.sleep(timing.HEARTBEAT_INTERVAL_S)

    async def _send_events(self, socket: DroneSocket, outbox: asyncio.Queue[BackendEvent], listener: Listener) -> None:
        # Here, since all else must go on while the disk does not answer.
        await self._store.register_listener(listener)
        while True:
            await socket.send(MessageFromDrone(backend_event=await outbox.get()))

    async def _send_renewals(self, socket: DroneSocket, renewals: asyncio.Queue[RenewKey]) -> None:
        while True:
            await socket.send(MessageFromDrone(renew_key=await renewals.get()))

    async def _send_acks(self, socket: DroneSocket, acks: asyncio.Queue[str]) -> None:
        while True:
            await socket.send(MessageFromDrone(ack_action=AckAction(await acks.get())))

    def _acknowledge(self, action_id: str) -> None:
        """An action is applied. Without a connection nothing is sent: it comes again, and is acknowledged then."""
        if self._acks is not None and not self._acks.full():
            self._acks.put_nowait(action_id)

    async def _send_metrics(self, socket: DroneSocket) -> None:
        while True:
            await socket.send(MessageFromDrone(backend_metrics=await self._metrics.get()))

    async def _hear(self, socket: DroneSocket) -> None:
        readers = OwnedTasks(lambda error: log.error("message not acted on", exc_info=error))
        try:
            async for message in socket.messages():
                # The first message shows that the controller has accepted this drone under its name.
                self._executor.accepted()
                match message.content:
                    case BackendAction() as action:
                        self._executor.actions.accept(action, self._acknowledge)
                    case AckEvent(event_id):
                        self._recorder.acknowledge(event_id)
                    case RenewKeyResponse() as response:
                        self._executor.keys.answered(response)
                    case ReadLogs() as request:
                        readers.start(self._read_logs(socket, request))
        finally:
            await readers.end()

    async def _read_logs(self, socket: DroneSocket, request: ReadLogs) -> None:
        """Answer with a page of a backend's output, or with why there is none."""
        error: str | UnsetType = UNSET
        page = LogPage([], ended=True)
        wait_s = min(max(request.wait_ms / 1000, 0.0), LOGS_WAIT_LIMIT_S)
        self._log_readers += 1
        try:
            if self._log_readers > LOG_READERS_LIMIT:
                error = f"{LOG_READERS_LIMIT} readers wait for output of this drone already; try again later"
            else:
                page = await self._executor.read_logs(request.backend_id, request.after, request.tail, wait_s)
        except LogsUnavailable as reason:
            error = str(reason)
        finally:
            self._log_readers -= 1
        with suppress(SocketClosed):
            await socket.send(MessageFromDrone(logs_read=LogsRead(request.request_id, page, error)))


async def _until_set(overflowed: asyncio.Event) -> None:
    """Ends the session of a controller that takes events too slowly; the next one replays them."""
    await overflowed.wait()
    log.warning("the controller takes events too slowly; connecting anew")
