"""Responds to one proxy's route lookups, each as soon as the route of its token is known.

`plane.controller.nodes.proxy` starts them. A lookup whose backend is ready has no task of its own: callbacks take it
from the batch of its statement to the batch of its response. A backend may take minutes to start, with any number of
tokens. Lookups that wait for the same backend therefore share one task, which reads their routes in batches, and have a
limit of their own. A lookup that fails is dropped; the proxy sends it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from functools import partial

import structlog

from plane.controller.context import Context
from plane.database import backends
from plane.database.backends import RouteRow
from plane.database.event_bus import Overflowed, Subscription
from plane.database.pool import DatabaseUnavailable, Unstorable
from plane.protocol.backend_state import BackendStatus
from plane.protocol.handshake import Extension
from plane.protocol.notifications import EventKind
from plane.protocol.proxy_messages import (
    MessageFromProxy,
    MessageToProxy,
    RouteInfo,
    RouteInfoResponse,
    RouteInfoResponses,
)
from plane.tasks import OwnedTasks
from plane.throttled_log import ThrottledWarning
from plane.transport.node_socket import NodeSocket, SocketClosed

__all__ = ["RouteLookups"]

# Lookups of one proxy that wait for the database.
MAX_READING = 10_000
# Lookups that wait for one backend, and for all: several backends that never become ready must not block others.
MAX_WAITING_PER_BACKEND = 10_000
MAX_WAITING = 50_000
# Routes that are read at once for the lookups of one backend; other lookups are served in between.
READ_BATCH_SIZE = 200
# Responses of one message, and the size of a user's data in it: such a message is far below the limit of messages.
LIST_SIZE = 200
LISTED_USER_DATA_BYTES = 4_096

log = structlog.get_logger("plane.controller")


@dataclass(eq=False, slots=True)
class _Lookup:
    """A lookup of a token's route. ``revoked``: it has none, even if the database returned one a moment ago."""

    token: str
    due_s: float
    revoked: bool = False


@dataclass(eq=False, slots=True)
class _Waiting:
    """The lookups that wait for one backend, oldest first."""

    lookups: deque[_Lookup] = field(default_factory=deque)


class RouteLookups:
    """The unfinished route lookups of one proxy."""

    def __init__(self, context: Context, socket: NodeSocket[MessageFromProxy, MessageToProxy]) -> None:
        self._context = context
        self._socket = socket
        self._clock = asyncio.get_running_loop().time
        # By token: a lookup that is sent again shares the response of the first one.
        self._open: dict[str, _Lookup] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._waiting_count = 0
        # Decided lookups whose responses are not sent yet.
        self._decided: list[tuple[_Lookup, RouteRow | None]] = []
        self._has_decided = asyncio.Event()
        self._ended = False
        self._too_many = ThrottledWarning(log, "too many route lookups of a proxy", proxy=socket.peer.name)
        self._failed = ThrottledWarning(log, "route lookup failed", proxy=socket.peer.name)
        self._tasks = OwnedTasks(
            lambda error: log.error("unexpected error in a route lookup", proxy=socket.peer.name, exc_info=error)
        )

    def start(self, token: str) -> None:
        """Respond as soon as the token's route is known."""
        if token in self._open:
            return
        if len(self._open) - self._waiting_count >= MAX_READING:
            self._too_many.warn()
            return
        lookup = self._open[token] = _Lookup(token, self._clock() + self._context.settings.limits.route_lookup_s)
        read = self._context.statements.routes.submit_with_deadline(token)
        read.add_done_callback(partial(self._read_done, lookup))

    def revoke(self, tokens: tuple[str, ...]) -> None:
        """Respond to lookups of these tokens with no route."""
        for token in tokens:
            if (lookup := self._open.get(token)) is not None:
                lookup.revoked = True

    async def run(self) -> None:
        """Send responses, those of one batch together, until cancelled."""
        while True:
            await self._has_decided.wait()
            self._has_decided.clear()
            decided, self._decided = self._decided, []
            try:
                await self._respond(decided)
            except SocketClosed as error:
                self._failed.warn(error=str(error), lookups=len(decided))
            finally:
                for lookup, _ in decided:
                    self._close(lookup)

    async def end(self) -> None:
        """Cancel all lookups, after the connection has ended."""
        self._ended = True
        await self._tasks.end()
        self._too_many.end()
        self._failed.end()

    def _read_done(self, lookup: _Lookup, read: asyncio.Future[RouteRow | None]) -> None:
        """Respond to a lookup, or let it wait for its backend."""
        if self._ended or read.cancelled():
            self._close(lookup)
            return
        try:
            row = read.result()
        except Unstorable:
            # For example, a token with NUL: it cannot exist.
            row = None
        except DatabaseUnavailable as error:
            self._failed.warn(error=str(error))
            self._close(lookup)
            return
        if _is_decided(row):
            self._decided.append((lookup, row))
            self._has_decided.set()
        elif row is None or not self._wait_for(row.backend_id, lookup):
            self._close(lookup)

    def _wait_for(self, backend_id: str, lookup: _Lookup) -> bool:
        """Queue a lookup until its backend is ready; false if too many wait already."""
        waiting = self._waiting.get(backend_id)
        if self._waiting_count >= MAX_WAITING or (waiting and len(waiting.lookups) >= MAX_WAITING_PER_BACKEND):
            self._too_many.warn(backend=backend_id)
            return False
        if waiting is None:
            waiting = self._waiting[backend_id] = _Waiting()
            self._tasks.start(self._wait(backend_id, waiting))
        waiting.lookups.append(lookup)
        self._waiting_count += 1
        return True

    async def _wait(self, backend_id: str, waiting: _Waiting) -> None:
        """Respond to the lookups of a backend when it is ready or terminated, or to each when it times out."""
        try:
            with self._context.bus.subscribe(EventKind.BACKEND_STATE, backend_id) as states:
                # The state is read first: the backend may have become ready before the subscription.
                while waiting.lookups and await self._is_starting(backend_id):
                    await self._wait_for_event(states, waiting)
            # Later lookups start a new wait, and read the state again.
            del self._waiting[backend_id]
            lookups = list(waiting.lookups)
            for first in range(0, len(lookups), READ_BATCH_SIZE):
                part = lookups[first : first + READ_BATCH_SIZE]
                rows = await asyncio.gather(*(self._read(lookup.token) for lookup in part))
                await self._respond(list(zip(part, rows, strict=True)))
        except (DatabaseUnavailable, Overflowed, SocketClosed) as error:
            self._failed.warn(error=str(error), lookups=len(waiting.lookups))
        finally:
            if self._waiting.get(backend_id) is waiting:
                del self._waiting[backend_id]
            self._waiting_count -= len(waiting.lookups)
            for lookup in waiting.lookups:
                self._close(lookup)

    async def _is_starting(self, backend_id: str) -> bool:
        found = await backends.state_now(self._context.db, backend_id)
        return found is not None and found[0].state.status.number < BackendStatus.READY.number

    async def _wait_for_event(self, states: Subscription, waiting: _Waiting) -> None:
        """Return after an event of the backend, or when no lookup waits any more.

        Lookups that time out get no route.
        """
        while waiting.lookups:
            left_s = waiting.lookups[0].due_s - self._clock()
            if left_s > 0 and await states.next_within(left_s) is not None:
                return
            if waiting.lookups[0].due_s <= self._clock():
                late = waiting.lookups.popleft()
                self._waiting_count -= 1
                self._close(late)
                await self._respond([(late, None)])

    async def _read(self, token: str) -> RouteRow | None:
        try:
            return await self._context.statements.routes.execute(token)
        except Unstorable:
            # For example, a token with NUL: it cannot exist.
            return None

    async def _respond(self, found: list[tuple[_Lookup, RouteRow | None]]) -> None:
        responses = [RouteInfoResponse(lookup.token, _route(lookup, row)) for lookup, row in found]
        if len(responses) > 1 and self._socket.peer.supports(Extension.ROUTES):
            await self._socket.send_all(_lists(responses))
        else:
            await self._socket.send_all([MessageToProxy(route_info_response=response) for response in responses])

    def _close(self, lookup: _Lookup) -> None:
        if self._open.get(lookup.token) is lookup:
            del self._open[lookup.token]


def _is_decided(row: RouteRow | None) -> bool:
    """Return whether the route is final: the backend is ready, or there is none and there will be none."""
    return row is None or row.route is not None or row.status_number >= BackendStatus.TERMINATING.number


def _lists(responses: list[RouteInfoResponse]) -> list[MessageToProxy]:
    """Return messages with many responses each; one of a user with much data has a message of its own."""
    listed: list[RouteInfoResponse] = []
    messages: list[MessageToProxy] = []
    for response in responses:
        if _user_data_bytes(response) <= LISTED_USER_DATA_BYTES:
            listed.append(response)
        else:
            messages.append(MessageToProxy(route_info_response=response))
    for first in range(0, len(listed), LIST_SIZE):
        part = tuple(listed[first : first + LIST_SIZE])
        messages.append(MessageToProxy(route_info_responses=RouteInfoResponses(part)))
    return messages


def _user_data_bytes(response: RouteInfoResponse) -> int:
    return 0 if response.route_info is None else len(response.route_info.user_data or b"")


def _route(lookup: _Lookup, row: RouteRow | None) -> RouteInfo | None:
    if lookup.revoked or row is None or row.status_number >= BackendStatus.TERMINATING.number:
        return None
    return row.route
