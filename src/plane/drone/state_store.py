"""The drone's persistent state: the states of its backends, unacknowledged events, and what adoption needs.

SQLite, in a file or in memory, on one thread of its own. Each operation is one transaction, which is on disk before the
operation returns. The tables ``backend`` and ``event`` are those of the original drone
(`docs/reference/protocol/drone.md`). It ignores the other tables, which this implementation adds
(docs/decisions/0004-readoption.md).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from plane.drone.clock import ClockReading
from plane.os_errors import error_reason
from plane.protocol import codec
from plane.protocol.backend_state import BackendState, BackendStatus, Terminated, state_from_json
from plane.protocol.drone_messages import BackendEvent, SpawnOrder
from plane.protocol.errors import ConfigurationError, PlaneError
from plane.protocol.keys import KeyDeadlines
from plane.protocol.names import NodeName
from plane.protocol.times import DroneTime

__all__ = ["Listener", "StateStore", "StoredRun", "UnknownBackend", "open_state_store"]

Listener = Callable[[BackendEvent], None]
# How long the former process of an upgraded drone may take to stop.
LOCK_TIMEOUT_S = 10.0
LOCK_POLL_INTERVAL_S = 0.05
T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS backend (
    id TEXT PRIMARY KEY,
    state json NOT NULL
);
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    backend_id TEXT,
    event json NOT NULL,
    timestamp INTEGER NOT NULL,
    FOREIGN KEY (backend_id) REFERENCES backend(id)
);
CREATE TABLE IF NOT EXISTS backend_run (
    id TEXT PRIMARY KEY REFERENCES backend(id),
    spawn_order json,
    deadlines json,
    handle json,
    ended_at INTEGER
);
CREATE TABLE IF NOT EXISTS drone_clock (
    boot_id TEXT NOT NULL,
    offset_ns INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS drone_name (
    name TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS drone_fact (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
"""
_UPSERT_STATE = "INSERT INTO backend (id, state) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state"
_INSERT_RUN = "INSERT INTO backend_run (id, spawn_order) VALUES (?, ?)"
_INSERT_EVENT = "INSERT INTO event (backend_id, event, timestamp) VALUES (?, ?, ?)"
_ACTIVE_RUNS = """
SELECT backend.id, state, spawn_order, deadlines, handle
FROM backend LEFT JOIN backend_run ON backend_run.id = backend.id
WHERE json_extract(state, '$.status') <> ? ORDER BY backend.rowid
"""
# A backend that ended before the table backend_run existed counts as ended when it is first seen.
_MARK_ENDED = """
INSERT INTO backend_run (id, ended_at) SELECT id, ? FROM backend
WHERE json_extract(state, '$.status') = ? AND id NOT IN (SELECT id FROM backend_run)
"""
_DELETE_RUNS = """
DELETE FROM backend_run WHERE ended_at <= ? AND id NOT IN (SELECT backend_id FROM event) RETURNING id
"""
_DELETE_BACKEND = (
    "DELETE FROM event WHERE backend_id = ?",
    "DELETE FROM backend_run WHERE id = ?",
    "DELETE FROM backend WHERE id = ?",
)
_LAST_TIME = """
SELECT max(at) FROM (
    SELECT max(timestamp) AS at FROM event
    UNION ALL SELECT max(ended_at) FROM backend_run
    UNION ALL SELECT CAST(value AS INTEGER) FROM drone_fact WHERE name = 'clock_last_ms'
)
"""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A backend that had not ended when the store was closed.

    Attributes:
        order: has the latest stored deadlines; None if an earlier version, or an original drone, wrote the file.
        handle: what the runtime needs to find the backend again.
    """

    state: BackendState
    order: SpawnOrder | None
    handle: Any


class UnknownBackend(PlaneError):
    """The state store has no state of the backend ``backend_id``."""

    def __init__(self, backend_id: str) -> None:
        super().__init__(f"the state store has no backend {backend_id!r}")
        self.backend_id = backend_id


class StateStore:
    """The state of one drone. Each operation returns once it is durable.

    The listener receives events in the order of their ids, in the event loop's thread. Methods of SQL run in the
    store's thread.
    """

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread
        self._listener: Listener | None = None

    async def register_event(
        self,
        backend_id: str,
        state: BackendState,
        timestamp: DroneTime,
        *,
        handle: Any = None,
    ) -> int:
        """Store a backend's state and the event that reports it. Return the event's id.

        Args:
            handle: stored with the state if given. It is deleted when the backend ends, like its order.
        """
        event = await self._run(
            partial(self._register, backend_id, state, timestamp, handle),
            # Sent even if the caller is cancelled meanwhile: each stored event is sent.
            lambda event: self._listener(event) if self._listener else None,
        )
        return event.event_id

    async def begin_backend(
        self, backend_id: str, states: Sequence[BackendState], timestamp: DroneTime, order: SpawnOrder
    ) -> None:
        """Store a new backend that has entered ``states``, and an event for each, with one sync of the disk."""

        def notify(events: list[BackendEvent]) -> None:
            for event in events:
                if self._listener:
                    self._listener(event)

        await self._run(partial(self._begin, backend_id, states, timestamp, order), notify)

    async def backend_state(self, backend_id: str) -> BackendState:
        """Return the current state of a backend.

        Raises:
            UnknownBackend: there is none.
        """
        rows = await self._run(partial(self._rows, "SELECT state FROM backend WHERE id = ?", backend_id))
        if not rows:
            raise UnknownBackend(backend_id)
        return state_from_json(rows[0][0])

    async def register_listener(self, listener: Listener) -> None:
        """Call ``listener`` with each unacknowledged event, in order, then with each new one.

        It replaces the former listener.
        """

        def replay(events: list[BackendEvent]) -> None:
            self._listener = listener
            for event in events:
                listener(event)

        await self._run(self._unacknowledged, replay)

    def remove_listener(self, listener: Listener) -> None:
        """Remove ``listener``, unless another one has replaced it."""
        if self._listener is listener:
            self._listener = None

    async def ack_events(self, event_ids: Sequence[int]) -> None:
        """Delete acknowledged events, which are never sent again."""
        await self._run(partial(self._delete_events, list(event_ids)))

    async def has_unacknowledged(self) -> bool:
        """Return whether any event is unacknowledged."""
        return bool(await self._run(partial(self._rows, "SELECT id FROM event LIMIT 1")))

    async def unacknowledged_count(self) -> int:
        """Return the number of unacknowledged events."""
        (count,) = (await self._run(partial(self._rows, "SELECT count(*) FROM event")))[0]
        return int(count)

    async def active_runs(self) -> dict[str, StoredRun]:
        """Return all backends that are not terminated."""
        rows = await self._run(partial(self._rows, _ACTIVE_RUNS, str(BackendStatus.TERMINATED)))
        return {backend_id: _stored_run(*columns) for backend_id, *columns in rows}

    async def delete_active(self) -> int:
        """Delete all backends that are not terminated, with their events. Return their number."""
        return await self._run(self._delete_active)

    async def store_deadlines(self, leases: Mapping[str, KeyDeadlines]) -> None:
        """Store the deadlines of backends' leases."""
        await self._run(partial(self._write_deadlines, dict(leases)))

    async def delete_ended(self, now: DroneTime, retention_s: float) -> list[str]:
        """Delete backends that ended at least ``retention_s`` ago and have no events left. Return their ids."""
        return await self._run(partial(self._delete_ended, now, now.plus_s(-retention_s)))

    async def clock_reading(self) -> ClockReading | None:
        """Return what `store_clock` stored last; None if nothing."""
        rows = await self._run(partial(self._rows, "SELECT boot_id, offset_ns FROM drone_clock"))
        return ClockReading(str(rows[0][0]), int(rows[0][1])) if rows else None

    async def store_clock(self, reading: ClockReading) -> None:
        """Store the drone's clock, which the stored deadlines refer to."""
        await self._run(partial(self._replace, "drone_clock", reading.boot_id, reading.offset_ns))

    async def facts(self) -> dict[str, str]:
        """Return what `store_facts` stored, by name."""
        return dict(await self._run(partial(self._rows, "SELECT name, value FROM drone_fact")))

    async def store_facts(self, facts: Mapping[str, str]) -> None:
        """Store facts about the drone. Facts with other names are kept."""
        await self._run(partial(self._write_facts, dict(facts)))

    async def last_time(self) -> DroneTime | None:
        """Return the latest time of the drone's clock at which anything was stored; None if nothing was."""
        rows = await self._run(partial(self._rows, _LAST_TIME))
        return None if rows[0][0] is None else DroneTime(int(rows[0][0]))

    async def drone_name(self) -> NodeName | None:
        """Return what `store_drone_name` stored last; None if nothing."""
        rows = await self._run(partial(self._rows, "SELECT name FROM drone_name"))
        return NodeName(rows[0][0]) if rows else None

    async def store_drone_name(self, name: NodeName) -> None:
        """Store the name under which controllers know this drone."""
        await self._run(partial(self._replace, "drone_name", name))

    async def _run(self, work: Callable[[], T], then: Callable[[T], None] | None = None) -> T:
        """Run ``work`` in the store's thread, then ``then`` with its result in the event loop's thread.

        Both run even if the caller is cancelled.
        """
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        if then is not None:
            future.add_done_callback(
                lambda done: then(done.result()) if not done.cancelled() and done.exception() is None else None
            )
        return await asyncio.shield(future)

    def _begin(
        self, backend_id: str, states: Sequence[BackendState], timestamp: DroneTime, order: SpawnOrder
    ) -> list[BackendEvent]:
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_UPSERT_STATE, (backend_id, codec.encode(states[-1]).decode()))
            connection.execute(_INSERT_RUN, (backend_id, codec.encode(order).decode()))
            return [self._insert_event(backend_id, state, timestamp) for state in states]

    def _register(self, backend_id: str, state: BackendState, timestamp: DroneTime, handle: Any) -> BackendEvent:
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_UPSERT_STATE, (backend_id, codec.encode(state).decode()))
            if handle is not None:
                known = (codec.encode(handle).decode(), backend_id)
                connection.execute("UPDATE backend_run SET handle = ? WHERE id = ?", known)
            if isinstance(state, Terminated):
                # The environment in the order may contain secrets.
                connection.execute(
                    "INSERT INTO backend_run (id, ended_at) VALUES (?, ?) ON CONFLICT (id) DO UPDATE "
                    "SET spawn_order = NULL, handle = NULL, deadlines = NULL, ended_at = excluded.ended_at",
                    (backend_id, timestamp.ms),
                )
            return self._insert_event(backend_id, state, timestamp)

    def _insert_event(self, backend_id: str, state: BackendState, timestamp: DroneTime) -> BackendEvent:
        row = (backend_id, codec.encode(state).decode(), timestamp.ms)
        event_id = self._connection.execute(_INSERT_EVENT, row).lastrowid
        assert event_id is not None
        return BackendEvent(event_id, backend_id, state, timestamp)

    def _write_deadlines(self, leases: dict[str, KeyDeadlines]) -> None:
        rows = [(codec.encode(deadlines).decode(), backend_id) for backend_id, deadlines in leases.items()]
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("UPDATE backend_run SET deadlines = ? WHERE id = ? AND ended_at IS NULL", rows)

    def _write_facts(self, facts: dict[str, str]) -> None:
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR REPLACE INTO drone_fact VALUES (?, ?)", facts.items())

    def _replace(self, table: str, *row: object) -> None:
        """Make this the only row of a table that this implementation adds."""
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a name from this file
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608

    def _delete_ended(self, now: DroneTime, before: DroneTime) -> list[str]:
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_MARK_ENDED, (now.ms, str(BackendStatus.TERMINATED)))
            deleted = [row[0] for row in connection.execute(_DELETE_RUNS, (before.ms,)).fetchall()]
            connection.executemany("DELETE FROM backend WHERE id = ?", [(backend_id,) for backend_id in deleted])
        return deleted

    def _delete_active(self) -> int:
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            rows = connection.execute(_ACTIVE_RUNS, (str(BackendStatus.TERMINATED),)).fetchall()
            active = [(row[0],) for row in rows]
            for statement in _DELETE_BACKEND:
                connection.executemany(statement, active)
        return len(active)

    def _rows(self, statement: str, *args: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, args).fetchall()

    def _delete_events(self, event_ids: list[int]) -> None:
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM event WHERE id = ?", [(event_id,) for event_id in event_ids])

    def _unacknowledged(self) -> list[BackendEvent]:
        # By id, not by time: the clock of an original drone may step back.
        rows = self._connection.execute("SELECT id, backend_id, event, timestamp FROM event ORDER BY id")
        return [
            BackendEvent(event_id, backend_id, state_from_json(state), DroneTime(timestamp))
            for event_id, backend_id, state, timestamp in rows
        ]


def _stored_run(state: str, order: str | None, deadlines: str | None, handle: str | None) -> StoredRun:
    spawn = None if order is None else codec.decode(order, SpawnOrder)
    if spawn is not None and deadlines is not None:
        key = msgspec.structs.replace(spawn.key, deadlines=codec.decode(deadlines, KeyDeadlines))
        spawn = msgspec.structs.replace(spawn, key=key)
    return StoredRun(state_from_json(state), spawn, None if handle is None else codec.decode(handle, dict))


@asynccontextmanager
async def open_state_store(path: Path | None, wait_s: float = LOCK_TIMEOUT_S) -> AsyncIterator[StateStore]:
    """Open the store at ``path``, which is created with mode 0600 if it is missing. None: in memory.

    Args:
        wait_s: how long to wait for another drone that is stopping and still has the store.

    Raises:
        ConfigurationError: the file cannot be used, or another drone uses it.
    """
    if path is None:
        async with _opened(path) as store:
            yield store
        return
    descriptors = [_open_file(path.with_name(f"{path.name}.lock"), path)]
    try:
        await _lock(descriptors[0], path, wait_s)
        # The lock file may have been deleted, or the store have another path, such as that of a bind mount. The lock
        # file is needed all the same: earlier versions know only that.
        descriptors.append(_open_file(path, path))
        await _lock(descriptors[-1], path, wait_s)
        async with _opened(path) as store:
            yield store
    finally:
        # After SQLite's descriptors: closing any one gives up SQLite's own locks of the file.
        for descriptor in reversed(descriptors):
            os.close(descriptor)


def _open_file(file: Path, path: Path) -> int:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"--db: the state store {path} cannot be used: {error_reason(error)}") from error


async def _lock(descriptor: int, path: Path, wait_s: float) -> None:
    """Lock the store: two drones that adopt the same backends would terminate each other's."""
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > end:
                raise ConfigurationError(
                    f"--db: the state store {path} is in use by another drone; stop that one, or give each its own"
                ) from None
            await asyncio.sleep(LOCK_POLL_INTERVAL_S)
        else:
            return


@asynccontextmanager
async def _opened(path: Path | None) -> AsyncIterator[StateStore]:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="state-store") as thread:
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(thread, _open, path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"--db: the state store {path} cannot be used: {error_reason(error)}") from error
        try:
            yield StateStore(connection, thread)
        finally:
            await loop.run_in_executor(thread, connection.close)


def _open(path: Path | None) -> sqlite3.Connection:
    # isolation_level None: transactions are begun explicitly.
    connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Orders contain secrets, so deleted content is overwritten.
    connection.execute("PRAGMA secure_delete = ON")
    connection.executescript(_SCHEMA)
    return connection
