"""The event bus between controllers: PostgreSQL's LISTEN and NOTIFY, and a replay when the connection was lost.

One connection per controller listens; events are handed out in memory by (kind, key) or by kind: to a queue for who
may take its time (`EventBus.subscribe`), or by a call for who must not wait for a task to wake up
(`EventBus.calling`). A subscriber that is too slow is dropped and told so (`Overflowed`): it subscribes again and reads
the database. It never blocks the others. Rule: page 3, "Event bus".
"""

from __future__ import annotations

import asyncio
import datetime
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import asyncpg
import msgspec
import structlog

from plane.database.pool import CANNOT_CONNECT, Database, connect
from plane.database.statements import statements
from plane.decisions.reconnect_backoff import ReconnectBackoff
from plane.protocol import codec
from plane.protocol.errors import MessageError, PlaneError
from plane.protocol.notifications import EVENTS_CHANNEL, LOGS_CHANNEL, METRICS_CHANNEL, Event, EventKind
from plane.throttled_log import ThrottledWarning
from plane.timing import EVENT_REPLAY_PAGE

__all__ = ["EventBus", "Overflowed", "Subscription"]

# How often the listening connection is asked whether it lives: a dead TCP peer is not noticed otherwise.
PING_INTERVAL_S = 10.0
PING_LIMIT_S = 5.0
# Events that wait for one subscriber; more than a controller's busiest second.
SUBSCRIPTION_LIMIT = 10_000
# Events that wait to be handed out; beyond that the connection is dropped and what was missed is read again.
INBOX_LIMIT = 100_000
# Ids are given before commit, so a lower one may appear after a higher: a replay begins this far back, and ids
# seen already are dropped.
REPLAY_OVERLAP = 1_000
SEEN_LIMIT = 20_000

_SQL = statements("events")

log = structlog.get_logger("plane.database")


class Overflowed(PlaneError):
    """The subscriber was too slow and has missed events."""


class Subscription:
    """Events of one kind, or of one kind and key, since the subscription began."""

    def __init__(self) -> None:
        # None wakes whoever waits without an event.
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(SUBSCRIPTION_LIMIT)
        self._overflowed = False

    def put(self, event: Event | None) -> None:
        """Hand an event over; called by the bus."""
        if not self._overflowed:
            try:
                self._queue.put_nowait(event)
            except asyncio.QueueFull:
                self._overflowed = True

    async def next(self) -> Event:
        """The next event, as soon as there is one.

        Raises:
            Overflowed: events were missed.
        """
        while True:
            if (event := await self._get()) is not None:
                return event

    async def next_within(self, limit_s: float) -> Event | None:
        """The next event; None if none comes in time.

        Raises:
            Overflowed: events were missed.
        """
        # asyncio.timeout would do, at several times the cost for each of thousands of readers.
        timer = asyncio.get_running_loop().call_later(limit_s, self.put, None)
        try:
            return await self._get()
        finally:
            timer.cancel()

    async def _get(self) -> Event | None:
        if self._overflowed:
            raise Overflowed("subscriber too slow; events were missed")
        return await self._queue.get()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            yield await self.next()


class EventBus:
    """Fan-out of the database's events in one controller. `run` must be running for events to come.

    ``listening`` is set while they come; ``heard`` counts them.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._inbox: asyncio.Queue[str] = asyncio.Queue(INBOX_LIMIT)
        # Done, with the reason, once the connection that listens must be made again.
        self._broken: asyncio.Future[str]
        self._takers: dict[tuple[str, str | None], set[Callable[[Event], None]]] = {}
        self._last_id: int | None = None
        # In the order in which they were heard, so that the oldest is forgotten first.
        self._seen: OrderedDict[int, datetime.datetime] = OrderedDict()
        self._not_understood = ThrottledWarning(log, "notification not understood")
        self.listening = asyncio.Event()
        self.heard = 0

    @property
    def subscribers(self) -> int:
        """How many hear of events."""
        return sum(map(len, self._takers.values()))

    def recent(self, limit: int) -> list[tuple[int, datetime.datetime]]:
        """Up to ``limit`` of the events that were heard of last: each one's id, and when it was recorded."""
        return list(islice(reversed(self._seen.items()), limit))

    @contextmanager
    def subscribe(self, kind: EventKind, key: str | None = None) -> Iterator[Subscription]:
        """Events of ``kind``, in a queue; with ``key``, only those of that key."""
        subscription = Subscription()
        with self.calling(subscription.put, kind, key):
            yield subscription

    @contextmanager
    def calling(self, take: Callable[[Event], None], kind: EventKind, key: str | None = None) -> Iterator[None]:
        """Call ``take`` with each event of ``kind``, in the moment in which it is heard; with ``key``, of that key.

        ``take`` must be quick, as all others wait for it, and must not raise.
        """
        place = (str(kind), key)
        self._takers.setdefault(place, set()).add(take)
        try:
            yield
        finally:
            takers = self._takers[place]
            takers.discard(take)
            if not takers:
                del self._takers[place]

    async def run(self) -> None:
        """Listen, and listen again; until cancelled."""
        backoff = ReconnectBackoff()
        clock = asyncio.get_running_loop().time
        while True:
            try:
                await self._listen(lambda: backoff.connected(clock()))
            except (*CANNOT_CONNECT, PlaneError) as error:
                log.warning("event bus lost its connection", error=str(error) or type(error).__name__)
            finally:
                self.listening.clear()
            await asyncio.sleep(backoff.ended(clock()))

    async def _listen(self, connected: Callable[[], None]) -> None:
        connection = await connect(self._db.url)
        self._broken = asyncio.get_running_loop().create_future()
        # What still waits there from a former connection is part of the replay.
        self._inbox = asyncio.Queue(INBOX_LIMIT)
        try:
            connection.add_termination_listener(lambda _: self._break("closed"))
            await connection.add_listener(EVENTS_CHANNEL, self._notified)
            await connection.add_listener(METRICS_CHANNEL, self._metrics_notified)
            await connection.add_listener(LOGS_CHANNEL, self._notified)
            await self._replay(connection)
            connected()
            self.listening.set()
            log.info("event bus listens", last_event=self._last_id)
            handing_out = asyncio.create_task(self._hand_out())
            handing_out.add_done_callback(lambda _: self._break("an event cannot be read"))
            try:
                await self._until_broken(connection)
            finally:
                handing_out.cancel()
                await asyncio.wait([handing_out])
            if not handing_out.cancelled():
                # Its own reason says more.
                handing_out.result()
            log.warning("event bus lost its connection", error=self._broken.result())
        finally:
            connection.terminate()

    async def _until_broken(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        while not self._broken.done():
            await asyncio.wait([self._broken], timeout=PING_INTERVAL_S)
            if not self._broken.done():
                await connection.execute("SELECT 1", timeout=PING_LIMIT_S)

    def _break(self, reason: str) -> None:
        if not self._broken.done():
            self._broken.set_result(reason)

    def _notified(self, *args: object) -> None:
        payload = args[-1]
        assert isinstance(payload, str)
        if self._inbox.full():
            # What is dropped here is read again.
            self._break("events come faster than they are handed out")
        else:
            self._inbox.put_nowait(payload)

    def _metrics_notified(self, *args: object) -> None:
        """Metrics have no row and no order to keep; many of them must not keep an event waiting."""
        payload = args[-1]
        assert isinstance(payload, str)
        try:
            self._dispatch(codec.decode(payload, Event))
        except MessageError as error:
            self._not_understood.warn(error=str(error))

    async def _hand_out(self) -> None:
        while True:
            payload = await self._inbox.get()
            try:
                event = codec.decode(payload, Event)
            except MessageError as error:
                self._not_understood.warn(error=str(error))
                continue
            # A payload too large to travel stands in the event's row (A6).
            if event.payload is None and event.id is not None:
                row = await self._db.fetchrow(_SQL["event"], event.id)
                if row is None:
                    log.warning("event is gone from the database", event=event.id)
                    continue
                event = msgspec.structs.replace(event, payload=self._payload(row))
            if event.payload is not None:
                self._dispatch(event)

    async def _replay(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        newest: int = await connection.fetchval(_SQL["last_event"])
        if self._last_id is None:
            self._last_id = newest
            return
        if newest < self._last_id:
            # As a standby that took over without having received everything. Its ids come again, with other times.
            log.warning("the database has fewer events than were heard of", heard=self._last_id, has=newest)
            self._last_id = newest
        after = max(0, self._last_id - REPLAY_OVERLAP)
        while True:
            rows = await connection.fetch(_SQL["events_after"], after, EVENT_REPLAY_PAGE)
            for row in rows:
                if (payload := self._payload(row)) is not None:
                    self._dispatch(
                        Event(
                            id=row["id"], kind=row["kind"], key=row["key"], timestamp=row["created_at"], payload=payload
                        )
                    )
            if len(rows) < EVENT_REPLAY_PAGE:
                return
            after = rows[-1]["id"]

    def _payload(self, row: asyncpg.Record) -> dict[str, Any] | None:
        """That of an event's row; None, and a warning, if it is none that anybody here understands."""
        try:
            payload: dict[str, Any] = codec.decode(row["data"], dict)
        except MessageError as error:
            self._not_understood.warn(error=str(error))
            return None
        return payload

    def _dispatch(self, event: Event) -> None:
        if event.id is not None:
            if self._seen.get(event.id) == event.timestamp:
                return
            self._remember(event.id, event.timestamp)
        places = [(event.kind, event.key)]
        if event.key is not None:
            places.append((event.kind, None))
        for place in places:
            for take in self._takers.get(place, ()):
                take(event)

    def _remember(self, event_id: int, timestamp: datetime.datetime) -> None:
        self.heard += 1
        self._last_id = max(self._last_id or 0, event_id)
        self._seen[event_id] = timestamp
        self._seen.move_to_end(event_id)
        if len(self._seen) > SEEN_LIMIT:
            self._seen.popitem(last=False)
