"""``/ctrl/c/{cluster}/drone-socket``: what a drone says is stored, what is ordered is sent to it.

Rule: page 3, "Drone socket".
"""

from __future__ import annotations

import asyncio
import math
from functools import partial

import msgspec
import structlog
from aiohttp import web

from plane import timing
from plane.controller.api.endpoints import Endpoint, Parameter
from plane.controller.context import Context
from plane.controller.nodes.deferred_replies import Replies, no_reply
from plane.controller.nodes.log_relay import LogRelay
from plane.controller.nodes.session import serve_node
from plane.controller.termination import order_termination
from plane.database import actions, nodes
from plane.database.actions import Acknowledgement
from plane.database.backends import StateChange
from plane.database.event_bus import Subscription
from plane.database.nodes import DroneHeartbeat, Registration
from plane.decisions.access import Role
from plane.decisions.drones.registration import refusal_message
from plane.decisions.keys.lease_deadlines import lease_deadlines
from plane.protocol import codec
from plane.protocol.backend_state import BackendState, Terminated, TerminationKind, TerminationReason
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
    Stopping,
)
from plane.protocol.errors import MessageError
from plane.protocol.handshake import Extension, Handshake
from plane.protocol.logs import LogsRead
from plane.protocol.names import ClusterName, NodeKind
from plane.protocol.notifications import Event, EventKind
from plane.tasks import run_together
from plane.transport.node_socket import NodeRefused, NodeSocket

__all__ = ["DRONE_SOCKET_ENDPOINTS"]

DroneSocket = NodeSocket[MessageFromDrone, MessageToDrone]

# An action that was sent on this connection is sent again on it when it is still not acknowledged by then.
RESEND_AFTER_S = 30.0

log = structlog.get_logger("plane.controller")


async def _handle(request: web.Request) -> web.StreamResponse:
    """The endpoint."""
    pool = request.query.get("pool", "")

    async def register(context: Context, drone: Handshake, cluster: ClusterName, ip: str) -> Registration:
        return await _register(context, drone, cluster, pool, ip)

    async def serve(context: Context, socket: DroneSocket, registration: Registration) -> None:
        key = str(registration.node_id)
        with (
            context.bus.subscribe(EventKind.BACKEND_ACTION, key) as ordered,
            context.bus.subscribe(EventKind.LOGS_WANTED, key) as logs_wanted,
        ):
            logs = LogRelay(context, socket, logs_wanted)
            await _serve(context, socket, registration, ordered, logs)

    extensions = (Extension.STOPPING, Extension.LOGS)
    return await serve_node(request, NodeKind.DRONE, MessageFromDrone, serve, extensions=extensions, register=register)


async def _register(context: Context, drone: Handshake, cluster: ClusterName, pool: str, ip: str) -> Registration:
    """Store that the drone is connected.

    Raises:
        NodeRefused: another drone has its name.
    """
    registered = await nodes.register_drone(context.db, cluster, drone, pool, context.settings.name, ip)
    if registered is None:
        raise NodeRefused(refusal_message(drone.name))
    for backend in registered.void:
        # The drone may have begun it before it started over; it answers for what it does not know, too.
        log.warning("order to spawn is void: its drone has started over", backend=backend, drone=drone.name)
        kind, reason = TerminationKind.HARD, TerminationReason.LOST
        await order_termination(context.db, backend, registered.registration.node_id, kind, reason)
    return registered.registration


async def _serve(
    context: Context, socket: DroneSocket, registration: Registration, ordered: Subscription, logs: LogRelay
) -> None:
    """Run what a drone's connection needs until it ends, or one part fails."""
    replies = Replies(socket)
    sent_at: dict[str, float] = {}
    await run_together(
        _hear(context, socket, registration, replies, sent_at, logs),
        replies.run(),
        logs.run(),
        _send_actions(context, socket, registration.node_id, ordered, sent_at),
    )


async def _hear(
    context: Context,
    socket: DroneSocket,
    registration: Registration,
    replies: Replies,
    sent_at: dict[str, float],
    logs: LogRelay,
) -> None:
    writes, drone_id = context.writes, registration.node_id
    async for message in socket.messages():
        match message.content:
            case Heartbeat(local_time):
                await replies.expect(writes.heartbeats.put(DroneHeartbeat(registration, local_time)), no_reply)
            case BackendEvent() as event:
                change = StateChange(event.backend_id, _storable(event.state))
                await replies.expect(writes.states.put(change), partial(_event_stored, event))
            case AckAction(action_id):
                stored = writes.acknowledgements.put(Acknowledgement(action_id, drone_id))
                await replies.expect(stored, partial(_acknowledged, sent_at, action_id))
            case RenewKey() as renewal:
                await replies.expect(writes.renewals.put(renewal.backend), partial(_renewed, renewal))
            case Stopping():
                log.info("drone stops; it gets no more backends", drone=socket.peer.name)
                await nodes.drone_stops(context.db, drone_id)
            case LogsRead() as read:
                logs.answered(read)
            case metrics:
                await replies.expect(writes.metrics.put(metrics), no_reply)


def _storable(state: BackendState) -> BackendState:
    """The state without NUL, which the output of a process may have and PostgreSQL cannot hold."""
    if isinstance(state, Terminated) and state.message and "\0" in state.message:
        return msgspec.structs.replace(state, message=state.message.replace("\0", "\N{REPLACEMENT CHARACTER}"))
    return state


def _event_stored(event: BackendEvent, risen: bool) -> MessageToDrone:
    if not risen:
        log.debug(
            "state not stored: the backend is unknown, or has one at least as late",
            backend=event.backend_id,
            status=str(event.state.status),
        )
    return MessageToDrone(ack_event=AckEvent(event.event_id))


def _acknowledged(sent_at: dict[str, float], action_id: str, _: None) -> None:
    """From now on it counts as sent no more: if it is ordered again, it is sent again (A7)."""
    sent_at.pop(action_id, None)


def _renewed(renewal: RenewKey, done: bool) -> MessageToDrone:
    if not done:
        log.warning("key not renewed: it may not be, or is gone", backend=renewal.backend)
    deadlines = lease_deadlines(renewal.local_time) if done else None
    return MessageToDrone(renew_key_response=RenewKeyResponse(backend=renewal.backend, deadlines=deadlines))


async def _send_actions(
    context: Context, socket: DroneSocket, drone_id: int, ordered: Subscription, sent_at: dict[str, float]
) -> None:
    """Send each action as it is ordered, and from time to time whatever is not acknowledged.

    ``sent_at``: when each was sent on this connection, unless it is acknowledged.
    """
    clock = asyncio.get_running_loop().time
    next_poll = clock()
    while True:
        if clock() >= next_poll:
            if await context.writes.pending_checks.add(drone_id):
                async for action in actions.pending(context.db, drone_id):
                    if clock() - sent_at.get(action.action_id, -math.inf) >= RESEND_AFTER_S:
                        await _send(socket, action, sent_at)
            next_poll = clock() + timing.PENDING_ACTIONS_INTERVAL_S
        try:
            async with asyncio.timeout_at(next_poll):
                new = _action(await ordered.next())
        except TimeoutError:
            continue
        if new is not None and new.action_id not in sent_at:
            await _send(socket, new, sent_at)


async def _send(socket: DroneSocket, action: BackendAction, sent_at: dict[str, float]) -> None:
    sent_at[action.action_id] = asyncio.get_running_loop().time()
    await socket.send(MessageToDrone(action=action))


def _action(event: Event) -> BackendAction | None:
    """The event's action; None, and a warning, if it is none that is known here."""
    try:
        return codec.convert(event.payload, BackendAction)
    except MessageError as error:
        log.warning("action not understood", drone=event.key, error=str(error))
        return None


DRONE_SOCKET_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/c/{cluster}/drone-socket",
        handle=_handle,
        summary="Where a drone connects",
        role=Role.NODE,
        parameters=(Parameter("pool", "query", str, "The drone's pool"),),
        is_socket=True,
    ),
)
