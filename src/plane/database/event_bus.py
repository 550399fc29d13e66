"""The event bus between controllers: PostgreSQL's LISTEN and NOTIFY, with a replay after a lost connection.

One connection per controller listens. Events are distributed in memory by (kind, key) or by kind: to a queue
(`EventBus.subscribe`), or to a callback where waking a task would cost too much (`EventBus.subscribe_callback`). A
subscriber that is too slow never blocks the others: it gets `Overflowed`, subscribes again and reads the database.
Notifications are described in ``docs/reference/protocol/notifications.md``.
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
from plane.decisions.retry import ReconnectBackoff
from plane.protocol import codec
from plane.protocol.errors import MessageError, PlaneError
from plane.protocol.notifications import EVENTS_CHANNEL, LOGS_CHANNEL, METRICS_CHANNEL, Event, EventKind
from plane.throttled_log import ThrottledWarning
from plane.timing import EVENT_REPLAY_PAGE

__all__ = ["EventBus", "Overflowed", "Subscription"]

# The listening connection is pinged, since a dead TCP peer is not noticed otherwise.
PING_INTERVAL_S = 10.0
PING_TIMEOUT_S = 5.0
MAX_INBOX = 100_000
# Ids are assigned before the commit, so a lower id may appear after a higher one. A replay therefore begins this far
# back, and ids that were already seen are dropped.
REPLAY_OVERLAP = 1_000
MAX_SEEN = 20_000

_SQL = statements("events")

log = structlog.get_logger("plane.database")


class Overflowed(PlaneError):
    """The subscriber is too slow and has missed events."""


class Subscription:
    """A queue of the events of one kind, or of one kind and key."""

    def __init__(self, max_queued: int) -> None:
        # None wakes a waiter without an event.
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue(max_queued)
        self._overflowed = False

    def put(self, event: Event | None) -> None:
        """Queue an event; called by the bus."""
        if not self._overflowed:
            try:
                self._queue.put_nowait(event)
            except asyncio.QueueFull:
                self._overflowed = True

    async def next(self) -> Event:
        """Wait for the next event and return it.

        Raises:
            Overflowed: events were missed.
        """
        while True:
            if (event := await self._get()) is not None:
                return event

    async def next_within(self, timeout_s: float) -> Event | None:
        """Return the next event; None if there is none within the timeout.

        Raises:
            Overflowed: events were missed.
        """
        # asyncio.timeout would cost several times as much, for each of thousands of readers.
        timer = asyncio.get_running_loop().call_later(timeout_s, self.put, None)
        try:
            return await self._get()
        finally:
            timer.cancel()

    async def _get(self) -> Event | None:
        if self._overflowed:
            raise Overflowed("the subscriber is too slow and has missed events")
        return await self._queue.get()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            yield await self.next()


class EventBus:
    """Distributes the database's events in one controller. `run` must be running.

    ``listening`` is set while events are received; ``received`` counts them.

    Args:
        db: the database.
        max_queued: events that may be queued for one subscriber.
        max_inbox: events that may be queued for distribution. Beyond this number the connection is replaced, and missed
            events are read again.
    """

    def __init__(self, db: Database, *, max_queued: int, max_inbox: int = MAX_INBOX) -> None:
        self._db = db
        self._max_queued = max_queued
        self._max_inbox = max_inbox
        self._inbox: asyncio.Queue[str] = asyncio.Queue(max_inbox)
        # Done, with the reason, when the listening connection must be replaced.
        self._broken: asyncio.Future[str]
        self._callbacks: dict[tuple[str, str | None], set[Callable[[Event], None]]] = {}
        self._last_id: int | None = None
        # In the order of receipt, so that the oldest are dropped first.
        self._seen: OrderedDict[int, datetime.datetime] = OrderedDict()
        self._undecodable = ThrottledWarning(log, "notification not decoded")
        self.listening = asyncio.Event()
        self.received = 0

    @property
    def subscribers(self) -> int:
        """The number of subscriptions."""
        return sum(map(len, self._callbacks.values()))

    def recent(self, limit: int) -> list[tuple[int, datetime.datetime]]:
        """Return the id and the recording time of up to ``limit`` of the events that were received last."""
        return list(islice(reversed(self._seen.items()), limit))

    @contextmanager
    def subscribe(self, kind: EventKind, key: str | None = None) -> Iterator[Subscription]:
        """Queue events of ``kind`` while the block runs; with ``key``, only those of that key."""
        subscription = Subscription(self._max_queued)
        with self.subscribe_callback(subscription.put, kind, key):
            yield subscription

    @contextmanager
    def subscribe_callback(
        self, callback: Callable[[Event], None], kind: EventKind, key: str | None = None
    ) -> Iterator[None]:
        """Call ``callback`` with each event of ``kind`` when it is received; with ``key``, only those of that key.

        The callback must be quick, since all other subscribers wait for it, and must not raise.
        """
        place = (str(kind), key)
        self._callbacks.setdefault(place, set()).add(callback)
        try:
            yield
        finally:
            callbacks = self._callbacks[place]
            callbacks.discard(callback)
            if not callbacks:
                del self._callbacks[place]

    async def run(self) -> None:
        """Listen, and reconnect after errors, until cancelled."""
        backoff = ReconnectBackoff()
        clock = asyncio.get_running_loop().time
        while True:
            try:
                await self._listen(lambda: backoff.connected(clock()))
            except (*CANNOT_CONNECT, PlaneError) as error:
                log.warning("event bus connection lost", error=str(error) or type(error).__name__)
            finally:
                self.listening.clear()
            await asyncio.sleep(backoff.ended(clock()))

    async def _listen(self, connected: Callable[[], None]) -> None:
        connection = await connect(self._db.url)
        self._broken = asyncio.get_running_loop().create_future()
        # Events queued from a former connection are part of the replay.
        self._inbox = asyncio.Queue(self._max_inbox)
        try:
            connection.add_termination_listener(lambda _: self._break("closed"))
            await connection.add_listener(EVENTS_CHANNEL, self._on_notification)
            await connection.add_listener(METRICS_CHANNEL, self._on_metrics)
            await connection.add_listener(LOGS_CHANNEL, self._on_notification)
            await self._replay(connection)
            connected()
            self.listening.set()
            log.info("event bus listening", last_event=self._last_id)
            distribution = asyncio.create_task(self._distribute())
            distribution.add_done_callback(lambda _: self._break("an event cannot be processed"))
            try:
                await self._wait_until_broken(connection)
            finally:
                distribution.cancel()
                await asyncio.wait([distribution])
            if not distribution.cancelled():
                # Its own exception says more.
                distribution.result()
            log.warning("event bus connection lost", error=self._broken.result())
        finally:
            connection.terminate()

    async def _wait_until_broken(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        while not self._broken.done():
            await asyncio.wait([self._broken], timeout=PING_INTERVAL_S)
            if not self._broken.done():
                await connection.execute("SELECT 1", timeout=PING_TIMEOUT_S)

    def _break(self, reason: str) -> None:
        if not self._broken.done():
            self._broken.set_result(reason)

    def _on_notification(self, *args: object) -> None:
        payload = args[-1]
        assert isinstance(payload, str)
        if self._inbox.full():
            # The replay reads the events that are dropped here.
            self._break("events arrive faster than they are distributed")
        else:
            self._inbox.put_nowait(payload)

    def _on_metrics(self, *args: object) -> None:
        """Dispatch metrics at once: they have no row and no order, and must not delay events."""
        payload = args[-1]
        assert isinstance(payload, str)
        try:
            self._dispatch(codec.decode(payload, Event))
        except MessageError as error:
            self._undecodable.warn(error=str(error))

    async def _distribute(self) -> None:
        while True:
            payload = await self._inbox.get()
            try:
                event = codec.decode(payload, Event)
            except MessageError as error:
                self._undecodable.warn(error=str(error))
                continue
            # A payload that is too large for a notification is read from the event's row.
            if event.payload is None and event.id is not None:
                row = await self._db.fetchrow(_SQL["event"], event.id)
                if row is None:
                    log.warning("event deleted before it was read", event=event.id)
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
            # For example, a standby took over without all commits. It assigns the same ids again, with other times.
            log.warning("database has lost events", last_received=self._last_id, last_stored=newest)
            self._last_id = newest
        after = max(0, self._last_id - REPLAY_OVERLAP)
        while True:
            rows = await connection.fetch(_SQL["events_after"], after, EVENT_REPLAY_PAGE)
            for row in rows:
                if (payload := self._payload(row)) is not None:
                    self._dispatch(
                        Event(
                            id=row["id"],
                            kind=row["kind"],
                            key=row["key"],
                            timestamp=row["created_at"],
                            payload=payload,
                            replayed=True,
                        )
                    )
            if len(rows) < EVENT_REPLAY_PAGE:
                return
            after = rows[-1]["id"]

    def _payload(self, row: asyncpg.Record) -> dict[str, Any] | None:
        """Return the payload of an event's row; None, with a warning, if it cannot be decoded."""
        try:
            payload: dict[str, Any] = codec.decode(row["data"], dict)
        except MessageError as error:
            self._undecodable.warn(error=str(error))
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
            for callback in self._callbacks.get(place, ()):
                callback(event)

    def _remember(self, event_id: int, timestamp: datetime.datetime) -> None:
        self.received += 1
        self._last_id = max(self._last_id or 0, event_id)
        self._seen[event_id] = timestamp
        self._seen.move_to_end(event_id)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
