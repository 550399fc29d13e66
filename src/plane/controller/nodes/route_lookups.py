"""Answers one proxy's route lookups, each as soon as it is known where its token leads.

`plane.controller.nodes.proxy` starts them. A backend may take minutes to start, with any number of tokens: so those
that wait for one backend wait together, in one task that reads their routes in batches, and have a bound of their own.
A lookup that cannot be answered is dropped; the proxy sends it again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import structlog

from plane.controller.context import Context
from plane.database import backends
from plane.database.backends import RouteRow
from plane.database.event_bus import Overflowed, Subscription
from plane.database.pool import DatabaseUnavailable, Unstorable
from plane.protocol.backend_state import BackendStatus
from plane.protocol.notifications import EventKind
from plane.protocol.proxy_messages import MessageFromProxy, MessageToProxy, RouteInfo, RouteInfoResponse
from plane.tasks import OwnedTasks
from plane.throttled_log import ThrottledWarning
from plane.timing import STARTUP_TIMEOUT_S
from plane.transport.node_socket import NodeSocket, SocketClosed

__all__ = ["RouteLookups"]

# Lookups of one proxy that are under way to the database.
READING_LIMIT = 10_000
# Those that wait for one backend, and for all: several backends that never become ready leave room for others.
WAITING_FOR_ONE_LIMIT = 10_000
WAITING_LIMIT = 50_000
# Of those that have waited for one backend, so many are read at once; other lookups come in between.
AT_ONCE = 200
# A backend that is not ready by then never will be; its termination answers the lookup before that.
WAIT_TIMEOUT_S = STARTUP_TIMEOUT_S + 60

log = structlog.get_logger("plane.controller")


@dataclass(eq=False, slots=True)
class _Lookup:
    """Where does this token lead? ``revoked``: nowhere, whatever the database said of it a moment ago."""

    token: str
    due_s: float
    revoked: bool = False


@dataclass(eq=False, slots=True)
class _Waiting:
    """The lookups that wait for one backend, oldest first."""

    lookups: deque[_Lookup] = field(default_factory=deque)


class RouteLookups:
    """What one proxy wants to know and was not told yet."""

    def __init__(self, context: Context, socket: NodeSocket[MessageFromProxy, MessageToProxy]) -> None:
        self._context = context
        self._socket = socket
        self._clock = asyncio.get_running_loop().time
        # By token: a lookup that is sent again is answered by the first one.
        self._open: dict[str, _Lookup] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._waiting_count = 0
        self._too_many = ThrottledWarning(log, "proxy asks too much at once", proxy=socket.peer.name)
        self._not_answered = ThrottledWarning(log, "route question not answered", proxy=socket.peer.name)
        self._tasks = OwnedTasks(
            lambda error: log.error("route question failed", proxy=socket.peer.name, exc_info=error)
        )

    def start(self, token: str) -> None:
        """Answer as soon as it is known where the token leads."""
        if token in self._open:
            return
        if len(self._open) - self._waiting_count >= READING_LIMIT:
            self._too_many.warn()
            return
        lookup = self._open[token] = _Lookup(token, self._clock() + WAIT_TIMEOUT_S)
        self._tasks.start(self._look_up(lookup))

    def revoke(self, tokens: tuple[str, ...]) -> None:
        """These lead nowhere any more."""
        for token in tokens:
            if (lookup := self._open.get(token)) is not None:
                lookup.revoked = True

    async def end(self) -> None:
        """The connection is over."""
        await self._tasks.end()
        self._too_many.end()
        self._not_answered.end()

    async def _look_up(self, lookup: _Lookup) -> None:
        """Answer a lookup, or have it wait for its backend."""
        try:
            row = await self._read(lookup.token)
            if _is_decided(row):
                await self._answer([(lookup, row)])
            elif row is not None and self._wait_for(row.backend_id, lookup):
                return
        except (DatabaseUnavailable, SocketClosed) as error:
            self._not_answered.warn(error=str(error))
        except BaseException:
            self._close(lookup)
            raise
        self._close(lookup)

    def _wait_for(self, backend_id: str, lookup: _Lookup) -> bool:
        """False: too many wait already."""
        waiting = self._waiting.get(backend_id)
        if self._waiting_count >= WAITING_LIMIT or (waiting and len(waiting.lookups) >= WAITING_FOR_ONE_LIMIT):
            self._too_many.warn(backend=backend_id)
            return False
        if waiting is None:
            waiting = self._waiting[backend_id] = _Waiting()
            self._tasks.start(self._wait(backend_id, waiting))
        waiting.lookups.append(lookup)
        self._waiting_count += 1
        return True

    async def _wait(self, backend_id: str, waiting: _Waiting) -> None:
        """Answer the lookups that wait for a backend, once it is ready or has ended, or each when its time is up."""
        try:
            with self._context.bus.subscribe(EventKind.BACKEND_STATE, backend_id) as states:
                # Read also at first: it may have become ready before the subscription.
                while waiting.lookups and await self._is_starting(backend_id):
                    await self._until_more_is_known(states, waiting)
            # Who comes from here on waits anew, and reads the state again.
            del self._waiting[backend_id]
            lookups = list(waiting.lookups)
            for first in range(0, len(lookups), AT_ONCE):
                part = lookups[first : first + AT_ONCE]
                rows = await asyncio.gather(*(self._read(lookup.token) for lookup in part))
                await self._answer(list(zip(part, rows, strict=True)))
        except (DatabaseUnavailable, Overflowed, SocketClosed) as error:
            self._not_answered.warn(error=str(error), lookups=len(waiting.lookups))
        finally:
            if self._waiting.get(backend_id) is waiting:
                del self._waiting[backend_id]
            self._waiting_count -= len(waiting.lookups)
            for lookup in waiting.lookups:
                self._close(lookup)

    async def _is_starting(self, backend_id: str) -> bool:
        found = await backends.state_now(self._context.db, backend_id)
        return found is not None and found[0].state.status.number < BackendStatus.READY.number

    async def _until_more_is_known(self, states: Subscription, waiting: _Waiting) -> None:
        """Return after an event of the backend, or when nobody waits any more. Whose time is up is told: nowhere."""
        while waiting.lookups:
            left_s = waiting.lookups[0].due_s - self._clock()
            if left_s > 0 and await states.next_within(left_s) is not None:
                return
            if waiting.lookups[0].due_s <= self._clock():
                late = waiting.lookups.popleft()
                self._waiting_count -= 1
                self._close(late)
                await self._answer([(late, None)])

    async def _read(self, token: str) -> RouteRow | None:
        try:
            return await self._context.writes.routes.add(token)
        except Unstorable:
            # As text with NUL: it cannot be there.
            return None

    async def _answer(self, found: list[tuple[_Lookup, RouteRow | None]]) -> None:
        responses = [
            MessageToProxy(route_info_response=RouteInfoResponse(lookup.token, _route(lookup, row)))
            for lookup, row in found
        ]
        await self._socket.send_all(responses)

    def _close(self, lookup: _Lookup) -> None:
        if self._open.get(lookup.token) is lookup:
            del self._open[lookup.token]


def _is_decided(row: RouteRow | None) -> bool:
    """Whether it is known where the token leads: to a backend that is ready, or nowhere, now and later."""
    return row is None or row.route is not None or row.status_number >= BackendStatus.TERMINATING.number


def _route(lookup: _Lookup, row: RouteRow | None) -> RouteInfo | None:
    if lookup.revoked or row is None or row.status_number >= BackendStatus.TERMINATING.number:
        return None
    return row.route
