"""Endpoints about one backend: its status, the stream of its states, its termination."""

from __future__ import annotations

import asyncio

from aiohttp import ClientConnectionResetError, web

from plane.controller.answers import json_answer
from plane.controller.context import CONTEXT, Context
from plane.controller.endpoints import EVENT_STREAM, Endpoint, Parameter
from plane.database import actions, backends
from plane.database.notifications import Overflowed, Subscription
from plane.decisions.access import Role
from plane.identity import random_name
from plane.protocol import codec
from plane.protocol.backend_state import (
    BackendStatus,
    BackendStatusStreamEntry,
    TerminationKind,
    TerminationReason,
    public_entry,
    state_from_builtins,
)
from plane.protocol.drone_messages import BackendAction, BackendOrder, TerminateOrder
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.names import Prefix
from plane.protocol.notifications import EventKind
from plane.protocol.times import DbTime

__all__ = ["BACKEND_ENDPOINTS", "order_termination"]

KEEP_ALIVE_INTERVAL_S = 15.0
# A reader that takes nothing for this long is dropped; it comes back with Last-Event-ID.
WRITE_LIMIT_S = 15.0

_NO_SUCH_BACKEND = ApiFailure(404, ApiErrorKind.NOT_FOUND, "Backend does not exist")


async def _status(request: web.Request) -> web.Response:
    found = await backends.state_now(request.app[CONTEXT].db, request.match_info["backend"])
    if found is None:
        raise _NO_SUCH_BACKEND
    row, _ = found
    return json_answer(public_entry(row.state, row.time))


async def _soft_terminate(request: web.Request) -> web.Response:
    return await _terminate(request, TerminationKind.SOFT)


async def _hard_terminate(request: web.Request) -> web.Response:
    return await _terminate(request, TerminationKind.HARD)


async def _terminate(request: web.Request, kind: TerminationKind) -> web.Response:
    context = request.app[CONTEXT]
    backend_id = request.match_info["backend"]
    found = await backends.state_now(context.db, backend_id)
    if found is None:
        raise _NO_SUCH_BACKEND
    row, drone_id = found
    if row.state.status is not BackendStatus.TERMINATED:
        await order_termination(context, backend_id, drone_id, kind, TerminationReason.EXTERNAL)
    return json_answer(None)


async def order_termination(
    context: Context, backend_id: str, drone_id: int, kind: TerminationKind, reason: TerminationReason
) -> None:
    """Tell the drone to end the backend; the order is kept until the drone has acknowledged it."""
    action = BackendAction(
        action_id=random_name(Prefix.BACKEND_ACTION),
        backend_id=backend_id,
        drone_id=drone_id,
        action=BackendOrder(terminate=TerminateOrder(kind=kind, reason=reason)),
    )
    await actions.order(context.db, action)


async def _status_stream(request: web.Request) -> web.StreamResponse:
    """Past states, then each as it comes, as server-sent events.

    Ends after `terminated`. ``Last-Event-ID`` skips what the client has seen. An unknown backend gives an
    empty stream that stays open.
    """
    seen = _status_number(request.headers.get("Last-Event-ID"))
    context = request.app[CONTEXT]
    backend_id = request.match_info["backend"]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    try:
        # Subscribed before history is read: what happens in between comes twice, and is sent once.
        with context.bus.subscribe(EventKind.BACKEND_STATE, backend_id) as events:
            past = await backends.history(context.db, backend_id)
            await response.prepare(request)
            for row in past:
                seen = await _send(response, public_entry(row.state, row.time), seen)
            while seen < BackendStatus.TERMINATED.number:
                entry = await _next_entry(events)
                if entry is None:
                    await _write(response, b":\n\n")
                else:
                    seen = await _send(response, entry, seen)
        await _write_end(response)
    except (ClientConnectionResetError, ConnectionError, TimeoutError, Overflowed):
        # The reader is gone, stalled or too slow. Cutting the stream makes a live one come back for the rest.
        if request.transport is not None:
            request.transport.abort()
    return response


async def _next_entry(events: Subscription) -> BackendStatusStreamEntry | None:
    """The next state; None when it is time for a sign of life."""
    try:
        async with asyncio.timeout(KEEP_ALIVE_INTERVAL_S):
            event = await events.next()
    except TimeoutError:
        return None
    return public_entry(state_from_builtins(event.payload), DbTime(int(event.timestamp.timestamp() * 1000)))


async def _send(response: web.StreamResponse, entry: BackendStatusStreamEntry, seen: int) -> int:
    """Send an entry unless it is not above ``seen``; returns the number now seen."""
    if entry.status.number <= seen:
        return seen
    await _write(response, b"data: " + codec.encode(entry) + f"\nid: {entry.status}\n\n".encode())
    return entry.status.number


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_LIMIT_S):
        await response.write(data)


async def _write_end(response: web.StreamResponse) -> None:
    async with asyncio.timeout(WRITE_LIMIT_S):
        await response.write_eof()


def _status_number(last_event_id: str | None) -> int:
    """The number of a ``Last-Event-ID``; 0 for none, or one that is no status."""
    try:
        return BackendStatus(last_event_id).number if last_event_id else 0
    except ValueError:
        return 0


BACKEND_ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/pub/b/{backend}/status",
        also=("/pub/c/{cluster}/b/{backend}/status",),
        handle=_status,
        summary="The status of a backend",
        role=None,
        answer=BackendStatusStreamEntry,
        refusals=(404,),
    ),
    Endpoint(
        method="GET",
        path="/pub/b/{backend}/status-stream",
        also=("/pub/c/{cluster}/b/{backend}/status-stream",),
        handle=_status_stream,
        summary="Past states of a backend, then each as it comes, until it has ended",
        role=None,
        media=EVENT_STREAM,
        parameters=(Parameter("Last-Event-ID", "header", str, "Skip what comes up to this status"),),
    ),
    Endpoint(
        method="POST",
        path="/ctrl/b/{backend}/soft-terminate",
        also=("/ctrl/c/{cluster}/b/{backend}/soft-terminate",),
        handle=_soft_terminate,
        summary="Ask a backend to stop",
        role=Role.CONNECT,
        refusals=(404,),
    ),
    Endpoint(
        method="POST",
        path="/ctrl/b/{backend}/hard-terminate",
        also=("/ctrl/c/{cluster}/b/{backend}/hard-terminate",),
        handle=_hard_terminate,
        summary="Kill a backend",
        role=Role.CONNECT,
        refusals=(404,),
    ),
)
