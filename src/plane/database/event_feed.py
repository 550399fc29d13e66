"""The event feed: events are read, calls of the API and lost drones recorded, old events deleted.

Triggers of migration 0008 write the events of backends and of drones. The SQL is in ``event_feed.sql``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from plane.database.pool import Database, Transaction
from plane.database.statements import statements
from plane.decisions.drones.silence import SilentDrone
from plane.protocol import codec
from plane.protocol.event_feed import EventType, FeedEvent
from plane.protocol.times import DbTime
from plane.timing import DRONE_LOST_AFTER_S

__all__ = [
    "SCAN_LIMIT",
    "EventFilter",
    "FeedWindow",
    "FoundEvents",
    "OpenWriter",
    "feed_event",
    "feed_window",
    "oldest_writer",
    "prune",
    "read_after",
    "read_before",
    "record_call",
    "record_lost_drones",
    "silent_drones",
]

# Events that one statement looks at, however few of them match: a few milliseconds.
SCAN_LIMIT = 5_000
# Events that one statement deletes.
PRUNED_PER_STATEMENT = 1_000
DRONES_PER_STATEMENT = 500

_SQL = statements("event_feed")


class FeedWindow(NamedTuple):
    """The limits of the feed: events up to ``pruned`` were deleted, and events up to ``horizon`` are complete.

    ``newest``: the last id that was taken; if it is above the horizon, a transaction that takes ids is open.
    """

    pruned: int
    horizon: int
    newest: int


class OpenWriter(NamedTuple):
    """A transaction that holds the horizon back: the server's process, its program, and for how long it is open."""

    pid: int
    program: str
    open_s: float


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted. ``types`` None: all. ``key``: the name of a key; None: any or none."""

    types: frozenset[EventType] | None = None
    key: str | None = None

    def matches(self, event: FeedEvent) -> bool:
        """Return whether the event is wanted."""
        return (self.types is None or event.type in self.types) and (self.key is None or event.key == self.key)


class FoundEvents(NamedTuple):
    """Matching events. ``reached``: the id up to which the feed was looked at. ``at_end``: that is all of it."""

    events: list[FeedEvent]
    reached: int
    at_end: bool


async def feed_window(db: Database | Transaction) -> FeedWindow:
    """Return the limits of the feed. Events up to the horizon are visible to statements that begin afterwards."""
    row = (await db.fetch(_SQL["feed_window"]))[0]
    return FeedWindow(row["through"], row["horizon"], row["newest"])


async def oldest_writer(db: Database) -> OpenWriter | None:
    """Return the transaction that holds the horizon back for longest, if any."""
    row = await db.fetchrow(_SQL["oldest_writer"])
    return None if row is None else OpenWriter(row["pid"], row["application_name"], row["open_s"])


async def read_after(db: Database, after: int, horizon: int, wanted: EventFilter, limit: int) -> FoundEvents:
    """Return up to ``limit`` matching events after ``after`` and up to ``horizon``, oldest first."""
    return await _read("events_after", db, after, horizon, wanted, limit)


async def read_before(db: Database, newest: int, pruned: int, wanted: EventFilter, limit: int) -> FoundEvents:
    """Return up to ``limit`` matching events up to ``newest`` and after ``pruned``, the newest first."""
    return await _read("events_before", db, newest, pruned, wanted, limit)


async def _read(statement: str, db: Database, start: int, end: int, wanted: EventFilter, limit: int) -> FoundEvents:
    types = None if wanted.types is None else sorted(wanted.types)
    only_admin = wanted.key is None and wanted.types is not None and all(each.is_admin for each in wanted.types)
    # Where all match, no more need be looked at than are wanted.
    scan = limit if types is None else SCAN_LIMIT
    rows = await db.fetch(_SQL[statement], start, end, types, wanted.key, scan, only_admin, limit)
    events = [feed_event(row) for row in rows if row["id"] is not None]
    if len(events) >= limit:
        return FoundEvents(events, events[-1].id, at_end=False)
    if rows[0]["count"] >= scan:
        return FoundEvents(events, rows[0]["reached"], at_end=False)
    return FoundEvents(events, end, at_end=True)


def feed_event(row: asyncpg.Record) -> FeedEvent:
    """Return the event of a row."""
    return FeedEvent(
        id=row["id"],
        type=row["type"],
        time=DbTime(row["time"]),
        cluster=row["cluster"],
        backend=row["backend_id"],
        namespace=row["namespace"],
        key=row["key_name"],
        user=row["username"],
        drone=row["drone"],
        data={} if row["data"] is None else codec.decode(row["data"], dict),
    )


async def record_call(
    db: Transaction, kind: EventType, call: dict[str, Any], *, cluster: str | None = None, drone: str | None = None
) -> int:
    """Record a call of the control API in the transaction of what it changes, and return the event's id."""
    rows = await db.fetch(_SQL["record_call"], str(kind), cluster, drone, codec.encode(call).decode())
    added: int = rows[0]["id"]
    return added


async def prune(db: Database, min_age_days: int) -> None:
    """Delete events of at least this age, in small batches. Returns at once while another controller does it."""
    while (await db.fetch(_SQL["prune_events"], min_age_days, PRUNED_PER_STATEMENT))[0]["number"]:
        pass


async def silent_drones(db: Transaction) -> list[SilentDrone]:
    """Return drones that have been silent for long and whose silence is not yet an event."""
    rows = await db.fetch(_SQL["silent_drones"], DRONE_LOST_AFTER_S, DRONES_PER_STATEMENT)
    return [SilentDrone(row["id"], row["name"], row["stopped"], row["has_backends"]) for row in rows]


async def record_lost_drones(db: Transaction, silent: Sequence[int], lost: Sequence[int]) -> None:
    """Record that those of the silent drones are lost, and that the silence of all of them was looked at."""
    await db.fetch(_SQL["record_lost_drones"], silent, lost, DRONE_LOST_AFTER_S)
