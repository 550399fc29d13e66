"""``/ctrl/c/{cluster}/drone-socket``: store a drone's messages, and send it the actions of its backends.

The messages are described in ``docs/reference/protocol/drone.md``.
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
from plane.controller.nodes.deferred_replies import DeferredReplies, no_reply
from plane.controller.nodes.log_relay import LogRelay
from plane.controller.nodes.session import serve_node
from plane.controller.termination import terminate_backends
from plane.database import actions, nodes
from plane.database.actions import Acknowledgement
from plane.database.backends import StateChange
from plane.database.event_bus import Subscription
from plane.database.nodes import DroneHeartbeat, Registration
from plane.decisions.access import Role
from plane.decisions.backends.lost_drones import is_uncertain_end
from plane.decisions.drones.registration import may_register, orders_are_void, refusal_message
from plane.decisions.keys.lease import lease_deadlines
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

# An action is sent again on the same connection if it is not acknowledged within this time.
RESEND_AFTER_S = 30.0
# Events of a replay come together; the pending actions are read once for all of them.
REPLAY_LINGER_S = 0.1

log = structlog.get_logger("plane.controller")


async def _handle(request: web.Request) -> web.StreamResponse:
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

    extensions = (Extension.STOPPING, Extension.LOGS, Extension.STATES)
    return await serve_node(request, NodeKind.DRONE, MessageFromDrone, serve, extensions=extensions, register=register)


async def _register(context: Context, drone: Handshake, cluster: ClusterName, pool: str, ip: str) -> Registration:
    """Store that the drone is connected, and terminate backends whose spawn orders are void.

    Raises:
        NodeRefused: another drone has its name.
    """
    identity = drone.identity or None
    void: list[str] = []
    async with context.db.transaction() as transaction:
        known = await nodes.lock_drone(transaction, cluster, drone.name)
        if not may_register(identity, known):
            raise NodeRefused(refusal_message(drone.name))
        registration = await nodes.register(
            transaction, NodeKind.DRONE, cluster, drone.name, drone.version, context.settings.name, ip
        )
        await nodes.register_drone(transaction, registration, pool, identity)
        if orders_are_void(identity, known):
            void = await nodes.void_spawns(transaction, registration.node_id)
    for backend in void:
        log.warning("spawn order is void: its drone has another clock or store", backend=backend, drone=drone.name)
    # The drone may have spawned them before. It also reports the end of backends that it does not know.
    orders = [(backend, registration.node_id) for backend in void]
    await terminate_backends(context.db, orders, TerminationKind.HARD, TerminationReason.LOST)
    return registration


async def _serve(
    context: Context, socket: DroneSocket, registration: Registration, ordered: Subscription, logs: LogRelay
) -> None:
    """Serve a drone's connection until it ends or one part fails."""
    replies = DeferredReplies(socket)
    sent_at: dict[str, float] = {}
    await run_together(
        _receive(context, socket, registration, replies, sent_at, logs),
        replies.run(),
        logs.run(),
        _send_actions(context, socket, registration.node_id, ordered, sent_at),
    )


async def _receive(
    context: Context,
    socket: DroneSocket,
    registration: Registration,
    replies: DeferredReplies,
    sent_at: dict[str, float],
    logs: LogRelay,
) -> None:
    statements, drone_id = context.statements, registration.node_id
    async for message in socket.messages():
        match message.content:
            case Heartbeat(local_time):
                await replies.expect(statements.heartbeats.submit(DroneHeartbeat(registration, local_time)), no_reply)
            case BackendEvent() as event:
                uncertain = is_uncertain_end(event.state)
                change = StateChange(event.backend_id, _storable(event.state), uncertain=uncertain)
                await replies.expect(statements.states.submit(change), partial(_event_stored, event))
            case AckAction(action_id):
                stored = statements.acknowledgements.submit(Acknowledgement(action_id, drone_id))
                await replies.expect(stored, partial(_acknowledged, sent_at, action_id))
            case RenewKey() as renewal:
                await replies.expect(statements.renewals.submit(renewal.backend), partial(_renewed, renewal))
            case Stopping():
                log.info("drone stopping; it gets no more backends", drone=socket.peer.name)
                await nodes.mark_drone_stopping(context.db, drone_id)
            case LogsRead() as read:
                logs.on_response(read)
            case metrics:
                await replies.expect(statements.metrics.submit(metrics), no_reply)


def _storable(state: BackendState) -> BackendState:
    """Return the state without NUL, which a process may write and PostgreSQL cannot store."""
    if isinstance(state, Terminated) and state.message and "\0" in state.message:
        return msgspec.structs.replace(state, message=state.message.replace("\0", "\N{REPLACEMENT CHARACTER}"))
    return state


def _event_stored(event: BackendEvent, stored: bool) -> MessageToDrone:
    if not stored:
        log.debug(
            "backend state not stored: the backend is unknown or has a later state",
            backend=event.backend_id,
            status=str(event.state.status),
        )
    return MessageToDrone(ack_event=AckEvent(event.event_id))


def _acknowledged(sent_at: dict[str, float], action_id: str, _: None) -> None:
    """Forget that the action was sent: if it is enqueued again, it is sent again."""
    sent_at.pop(action_id, None)


def _renewed(renewal: RenewKey, done: bool) -> MessageToDrone:
    if not done:
        log.warning("key renewal refused: the key is missing, expired or not renewable", backend=renewal.backend)
    deadlines = lease_deadlines(renewal.local_time) if done else None
    return MessageToDrone(renew_key_response=RenewKeyResponse(backend=renewal.backend, deadlines=deadlines))


async def _send_actions(
    context: Context, socket: DroneSocket, drone_id: int, ordered: Subscription, sent_at: dict[str, float]
) -> None:
    """Send each action when it is enqueued, and periodically those that are not acknowledged.

    ``sent_at``: when each unacknowledged action was sent on this connection.
    """
    clock = asyncio.get_running_loop().time
    next_poll = clock()
    while True:
        if clock() >= next_poll:
            if await context.statements.pending_checks.execute(drone_id):
                async for action in actions.pending(context.db, drone_id):
                    if clock() - sent_at.get(action.action_id, -math.inf) >= RESEND_AFTER_S:
                        await _send(socket, action, sent_at)
            next_poll = clock() + timing.PENDING_ACTIONS_INTERVAL_S
        try:
            async with asyncio.timeout_at(next_poll):
                event = await ordered.next()
        except TimeoutError:
            continue
        if event.replayed:
            # The drone may have acknowledged it long ago. Executed once more on a store that was set back, it would
            # start a backend whose key another drone holds by now. The table knows what is still pending.
            next_poll = min(next_poll, clock() + REPLAY_LINGER_S)
            continue
        new = _action(event)
        if new is not None and new.action_id not in sent_at:
            await _send(socket, new, sent_at)


async def _send(socket: DroneSocket, action: BackendAction, sent_at: dict[str, float]) -> None:
    sent_at[action.action_id] = asyncio.get_running_loop().time()
    await socket.send(MessageToDrone(action=action))


def _action(event: Event) -> BackendAction | None:
    """Return the event's action; None, with a warning, if it cannot be decoded."""
    try:
        return codec.convert(event.payload, BackendAction)
    except MessageError as error:
        log.warning("backend action not decoded", drone=event.key, error=str(error))
        return None


DRONE_SOCKET_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/ctrl/c/{cluster}/drone-socket",
        handle=_handle,
        summary="WebSocket of a drone",
        role=Role.NODE,
        parameters=(Parameter("pool", "query", str, "The drone's pool"),),
        is_socket=True,
    ),
)
