"""A drone's session with a controller: heartbeats, events until acknowledged, actions, renewals, metrics and logs.

One session per connection; `plane.transport.node_socket` makes the connections. Messages:
`docs/reference/protocol/node-sockets.md` and `docs/reference/protocol/drone.md`.
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

# Unsent events of one connection. Beyond the limit the controller is too slow: the drone reconnects, and resends all.
OUTBOX_LIMIT = 100_000
# The id of events that report a current state once more. They are not in the store, whose ids begin at 1.
REPORTED_AGAIN = 0
# Unsent metrics. More are dropped: newer ones follow soon.
METRICS_LIMIT = 2_000
# Unsent acknowledgements. More are dropped: the controller resends an action that is not acknowledged.
ACKS_LIMIT = 10_000
# Concurrent requests for output, and how long each may wait for the first line.
LOG_READERS_LIMIT = 200
LOGS_WAIT_TIMEOUT_S = 60.0

log = structlog.get_logger("plane.drone")


class Agent:
    """Serves the connections of one drone, one at a time."""

    def __init__(self, store: StateStore, recorder: EventRecorder, backends: BackendManager, clock: DroneClock) -> None:
        self._store = store
        self._recorder = recorder
        self._backends = backends
        self._clock = clock
        self._socket: DroneSocket | None = None
        self._metrics: asyncio.Queue[BackendMetrics] = asyncio.Queue(METRICS_LIMIT)
        # Acknowledgements to send on the current connection; None without one.
        self._acks: asyncio.Queue[str] | None = None
        self._log_readers = 0

    def on_metrics(self, metrics: BackendMetrics) -> None:
        """Send the metrics of a backend to the controller, if one is connected."""
        if self._socket is not None and not self._metrics.full():
            self._metrics.put_nowait(metrics)

    @property
    def is_connected(self) -> bool:
        """Whether a controller is connected."""
        return self._socket is not None

    async def announce_stopping(self) -> None:
        """Notify the controller, if it supports the extension, that this drone accepts no more backends."""
        if self._socket is not None and self._socket.peer.supports(Extension.STOPPING):
            with suppress(SocketClosed):
                await self._socket.send(MessageFromDrone(stopping=Stopping()))

    async def run_session(self, socket: DroneSocket) -> None:
        """Serve one connection until it ends."""
        outbox: asyncio.Queue[BackendEvent] = asyncio.Queue(OUTBOX_LIMIT)
        overflowed = asyncio.Event()
        # Bounded: at most one renewal per key is in flight, until its response or the next connection.
        renewals: asyncio.Queue[RenewKey] = asyncio.Queue()
        acks = self._acks = asyncio.Queue(ACKS_LIMIT)

        def listener(event: BackendEvent) -> None:
            try:
                outbox.put_nowait(event)
            except asyncio.QueueFull:
                overflowed.set()

        try:
            self._backends.leases.on_connected(renewals.put_nowait)
            self._socket = socket
            await run_together(
                self._send_heartbeats(socket),
                self._send_events(socket, outbox, listener),
                self._send_renewals(socket, renewals),
                self._send_acks(socket, acks),
                self._send_metrics(socket),
                self._receive(socket),
                _until_overflow(overflowed),
            )
        finally:
            self._socket = None
            self._acks = None
            self._backends.leases.on_disconnected()
            self._store.remove_listener(listener)

    async def _send_heartbeats(self, socket: DroneSocket) -> None:
        while True:
            await socket.send(MessageFromDrone(heartbeat=Heartbeat(self._clock.now())))
            await asyncio.sleep(timing.HEARTBEAT_INTERVAL_S)

    async def _send_events(self, socket: DroneSocket, outbox: asyncio.Queue[BackendEvent], listener: Listener) -> None:
        # Registered in this task, because the other tasks must proceed while the disk does not respond.
        await self._store.register_listener(listener)
        if socket.peer.supports(Extension.STATES):
            # The database may have lost states that were acknowledged. Controllers ignore those that they know.
            for backend_id, run in (await self._store.active_runs()).items():
                listener(BackendEvent(REPORTED_AGAIN, backend_id, run.state, self._clock.now()))
        while True:
            await socket.send(MessageFromDrone(backend_event=await outbox.get()))

    async def _send_renewals(self, socket: DroneSocket, renewals: asyncio.Queue[RenewKey]) -> None:
        while True:
            await socket.send(MessageFromDrone(renew_key=await renewals.get()))

    async def _send_acks(self, socket: DroneSocket, acks: asyncio.Queue[str]) -> None:
        while True:
            await socket.send(MessageFromDrone(ack_action=AckAction(await acks.get())))

    def _acknowledge(self, action_id: str) -> None:
        """Acknowledge an applied action. Without a connection the controller resends the action later."""
        if self._acks is not None and not self._acks.full():
            self._acks.put_nowait(action_id)

    async def _send_metrics(self, socket: DroneSocket) -> None:
        while True:
            await socket.send(MessageFromDrone(backend_metrics=await self._metrics.get()))

    async def _receive(self, socket: DroneSocket) -> None:
        readers = OwnedTasks(lambda error: log.error("reading of logs failed", exc_info=error))
        try:
            async for message in socket.messages():
                # Any message shows that the controller has accepted this drone under its name.
                self._backends.on_accepted()
                match message.content:
                    case BackendAction() as action:
                        self._backends.actions.accept(action, self._acknowledge)
                    case AckEvent(event_id):
                        self._recorder.acknowledge(event_id)
                    case RenewKeyResponse() as response:
                        self._backends.leases.on_response(response)
                    case ReadLogs() as request:
                        readers.start(self._read_logs(socket, request))
        finally:
            await readers.end()

    async def _read_logs(self, socket: DroneSocket, request: ReadLogs) -> None:
        """Send a page of a backend's output, or the reason why there is none."""
        error: str | UnsetType = UNSET
        page = LogPage([], ended=True)
        wait_s = min(max(request.wait_ms / 1000, 0.0), LOGS_WAIT_TIMEOUT_S)
        self._log_readers += 1
        try:
            if self._log_readers > LOG_READERS_LIMIT:
                error = f"{LOG_READERS_LIMIT} requests for output of this drone are pending; try again later"
            else:
                page = await self._backends.read_logs(request.backend_id, request.after, request.tail, wait_s)
        except LogsUnavailable as reason:
            error = str(reason)
        finally:
            self._log_readers -= 1
        with suppress(SocketClosed):
            await socket.send(MessageFromDrone(logs_read=LogsRead(request.request_id, page, error)))


async def _until_overflow(overflowed: asyncio.Event) -> None:
    """End the session of a controller that receives events too slowly. The next session resends them."""
    await overflowed.wait()
    log.warning("controller receives events too slowly; reconnecting")
