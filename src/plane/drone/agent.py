"""A drone's session with a controller: heartbeats, events until acknowledged, actions, renewals.

One per connection; `plane.transport.node_socket` makes the connections. Rule: page 4, "On connect".
"""

from __future__ import annotations

import asyncio

import structlog

from plane import timing
from plane.drone.clock import DroneClock
from plane.drone.executor import Executor
from plane.drone.state_store import StateStore
from plane.ownership import run_together
from plane.protocol.drone_messages import (
    AckAction,
    AckEvent,
    BackendAction,
    BackendEvent,
    Heartbeat,
    MessageFromDrone,
    MessageToDrone,
    RenewKey,
    RenewKeyResponse,
)
from plane.transport.node_socket import NodeSocket, SocketClosed

__all__ = ["Agent"]

DroneSocket = NodeSocket[MessageToDrone, MessageFromDrone]

# Events that wait to be sent on one connection. Beyond that it is too slow, and is made anew; none is lost.
OUTBOX_LIMIT = 100_000

log = structlog.get_logger("plane.drone")


class Agent:
    """Serves the connections of one drone, one at a time."""

    def __init__(self, store: StateStore, executor: Executor, clock: DroneClock) -> None:
        self._store = store
        self._executor = executor
        self._clock = clock
        self._turns: dict[str, asyncio.Lock] = {}

    async def session(self, socket: DroneSocket) -> None:
        """Serve one connection to its end."""
        outbox: asyncio.Queue[BackendEvent] = asyncio.Queue(OUTBOX_LIMIT)
        overflowed = asyncio.Event()

        def listener(event: BackendEvent) -> None:
            try:
                outbox.put_nowait(event)
            except asyncio.QueueFull:
                overflowed.set()

        async def renew(request: RenewKey) -> None:
            try:
                await socket.send(MessageFromDrone(renew_key=request))
            except SocketClosed as error:
                log.info("renewal not sent; it is asked for again", backend=request.backend, error=str(error))

        try:
            await self._store.register_listener(listener)
            self._executor.keys.connected(renew)
            await run_together(
                self._beat(socket),
                self._send_events(socket, outbox),
                self._hear(socket),
                _until_set(overflowed),
            )
        finally:
            self._executor.keys.disconnected()
            self._store.remove_listener(listener)

    async def _beat(self, socket: DroneSocket) -> None:
        while True:
            await socket.send(MessageFromDrone(heartbeat=Heartbeat(self._clock.now())))
            await asyncio.sleep(timing.HEARTBEAT_INTERVAL_S)

    async def _send_events(self, socket: DroneSocket, outbox: asyncio.Queue[BackendEvent]) -> None:
        while True:
            await socket.send(MessageFromDrone(backend_event=await outbox.get()))

    async def _hear(self, socket: DroneSocket) -> None:
        applying: set[asyncio.Task[None]] = set()
        try:
            async for message in socket.messages():
                match message.content:
                    case BackendAction() as action:
                        task = asyncio.create_task(self._apply(socket, action))
                        applying.add(task)
                        task.add_done_callback(applying.discard)
                    case AckEvent(event_id):
                        await self._store.ack_event(event_id)
                    case RenewKeyResponse() as response:
                        self._executor.keys.answered(response)
        finally:
            # What is under way may be half done; it is finished, and acknowledged when it comes again.
            if applying:
                await asyncio.wait(applying, timeout=timing.NODE_SEND_LIMIT_S)

    async def _apply(self, socket: DroneSocket, action: BackendAction) -> None:
        """Apply an action when those before it for the same backend are applied; then acknowledge it."""
        turn = self._turns.setdefault(action.backend_id, asyncio.Lock())
        try:
            async with turn:
                applied = await self._executor.apply(action)
            if applied:
                await socket.send(MessageFromDrone(ack_action=AckAction(action.action_id)))
        except SocketClosed as error:
            log.info("action not acknowledged; it will come again", action=action.action_id, error=str(error))
        except Exception:
            log.exception("action not applied; it will come again", action=action.action_id)
        finally:
            if not turn.locked():
                self._turns.pop(action.backend_id, None)


async def _until_set(overflowed: asyncio.Event) -> None:
    """Ends the session of a controller that takes events too slowly; the next one replays them."""
    await overflowed.wait()
    log.warning("the controller takes events too slowly; connecting anew")
