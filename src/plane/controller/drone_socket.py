"""``/ctrl/c/{cluster}/drone-socket``: what a drone says is stored, what is ordered is sent to it.

Rule: page 3, "Drone socket".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from aiohttp import web

from plane import timing
from plane.controller.context import Context
from plane.controller.endpoints import Endpoint, Parameter
from plane.controller.node_session import serve_node
from plane.controller.sweeper import sweep_for_ever
from plane.database import actions, backends, keys, nodes
from plane.database.nodes import Registration
from plane.database.notifications import Subscription
from plane.decisions.access import Role
from plane.decisions.lease_terms import lease_deadlines
from plane.ownership import run_together
from plane.protocol import codec
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
from plane.protocol.handshake import Extension
from plane.protocol.names import NodeKind
from plane.protocol.notifications import Event, EventKind
from plane.transport.node_socket import NodeSocket

__all__ = ["DRONE_SOCKET_ENDPOINTS"]

DroneSocket = NodeSocket[MessageFromDrone, MessageToDrone]

# An action that was sent on this connection is sent again on it when it is still not acknowledged by then.
RESEND_AFTER_S = 30.0

log = structlog.get_logger("plane.controller")


async def _handle(request: web.Request) -> web.StreamResponse:
    """The endpoint."""
    pool = request.query.get("pool", "")

    async def serve(context: Context, socket: DroneSocket, registration: Registration) -> None:
        await nodes.register_drone(context.db, registration.node_id, pool)
        with context.bus.subscribe(EventKind.BACKEND_ACTION, str(registration.node_id)) as ordered:
            await _serve(context, socket, registration.node_id, ordered)

    return await serve_node(request, NodeKind.DRONE, MessageFromDrone, serve, extensions=(Extension.STOPPING,))


async def _serve(context: Context, socket: DroneSocket, drone_id: int, ordered: Subscription) -> None:
    """Run what a drone's connection needs until it ends, or one part fails."""
    await run_together(
        _hear(context, socket, drone_id),
        _send_actions(context, socket, drone_id, ordered),
        sweep_for_ever(context, drone_id),
    )


async def _hear(context: Context, socket: DroneSocket, drone_id: int) -> None:
    async for message in socket.messages():
        match message.content:
            case Heartbeat(local_time):
                await nodes.drone_heartbeat(context.db, drone_id, local_time)
            case BackendEvent() as event:
                await _record_event(context, event)
                await socket.send(MessageToDrone(ack_event=AckEvent(event.event_id)))
            case AckAction(action_id):
                await actions.acknowledge(context.db, action_id, drone_id)
            case RenewKey() as renewal:
                await socket.send(MessageToDrone(renew_key_response=await _renewed(context, renewal)))
            case Stopping():
                log.info("drone stops; it gets no more backends", drone=socket.peer.name)
                await nodes.drone_stops(context.db, drone_id)
            case metrics:
                await backends.publish_metrics(context.db, metrics)


async def _record_event(context: Context, event: BackendEvent) -> None:
    if not await backends.record_state(context.db, event.backend_id, event.state):
        log.debug(
            "state not stored: the backend is unknown, or has one at least as late",
            backend=event.backend_id,
            status=str(event.state.status),
        )


async def _renewed(context: Context, renewal: RenewKey) -> RenewKeyResponse:
    if not await keys.renew(context.db, renewal.backend):
        log.warning("key not renewed: it may not be, or is gone", backend=renewal.backend)
        return RenewKeyResponse(backend=renewal.backend, deadlines=None)
    return RenewKeyResponse(backend=renewal.backend, deadlines=lease_deadlines(renewal.local_time))


async def _send_actions(context: Context, socket: DroneSocket, drone_id: int, ordered: Subscription) -> None:
    """Send each action as it is ordered, and from time to time whatever is not acknowledged."""
    clock = asyncio.get_running_loop().time
    sent_at: dict[str, float] = {}
    next_poll = clock()
    while True:
        if clock() >= next_poll:
            unacknowledged: dict[str, float] = {}
            async for action in actions.pending(context.db, drone_id):
                last = sent_at.get(action.action_id)
                if last is None or clock() - last >= RESEND_AFTER_S:
                    await socket.send(MessageToDrone(action=action))
                    last = clock()
                unacknowledged[action.action_id] = last
            sent_at = unacknowledged
            next_poll = clock() + timing.PENDING_ACTIONS_INTERVAL_S
        with suppress(TimeoutError):
            async with asyncio.timeout_at(next_poll):
                new = _action(await ordered.next())
                if new is not None and new.action_id not in sent_at:
                    sent_at[new.action_id] = clock()
                    await socket.send(MessageToDrone(action=new))


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
        role=Role.ADMIN,
        parameters=(Parameter("pool", "query", str, "The drone's pool"),),
        is_socket=True,
    ),
)
