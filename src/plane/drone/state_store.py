"""What a drone remembers: the states of its backends, and the events that no controller has acknowledged.

SQLite, in a file or in memory, on one thread of its own; one transaction per operation, on disk before it
returns. Tables and rules: page 4, "State store".
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from plane.protocol import codec
from plane.protocol.backend_state import BackendState, BackendStatus, state_from_json
from plane.protocol.drone_messages import BackendEvent
from plane.protocol.errors import ConfigurationError, PlaneError
from plane.protocol.times import DroneTime

__all__ = ["Listener", "StateStore", "UnknownBackend", "open_state_store"]

Listener = Callable[[BackendEvent], None]
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
"""
_UPSERT_STATE = "INSERT INTO backend (id, state) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state"
_INSERT_EVENT = "INSERT INTO event (backend_id, event, timestamp) VALUES (?, ?, ?)"


class UnknownBackend(PlaneError):
    """The store has no state for ``backend_id``."""

    def __init__(self, backend_id: str) -> None:
        super().__init__(f"the state store knows no backend {backend_id!r}")
        self.backend_id = backend_id


class StateStore:
    """The five operations. Each returns once it is durable; the listener hears events in the order of their ids."""

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread
        self._listener: Listener | None = None

    async def register_event(self, backend_id: str, state: BackendState, timestamp: DroneTime) -> int:
        """Store the backend's state and an event that tells of it; returns the event's id."""
        event = await self._run(
            partial(self._register, backend_id, state, timestamp),
            # Told even if the caller is cancelled meanwhile: what is stored is told.
            lambda event: self._listener(event) if self._listener else None,
        )
        return event.event_id

    async def backend_state(self, backend_id: str) -> BackendState:
        """The current state.

        Raises:
            UnknownBackend
        """
        rows = await self._run(partial(self._rows, "SELECT state FROM backend WHERE id = ?", backend_id))
        if not rows:
            raise UnknownBackend(backend_id)
        return state_from_json(rows[0][0])

    async def register_listener(self, listener: Listener) -> None:
        """Tell ``listener`` every event not yet acknowledged, in order, and then each new one.

        It replaces the former listener.
        """

        def replay(events: list[BackendEvent]) -> None:
            self._listener = listener
            for event in events:
                listener(event)

        await self._run(self._unacknowledged, replay)

    def remove_listener(self, listener: Listener) -> None:
        """Stop telling ``listener``, unless another one has replaced it."""
        if self._listener is listener:
            self._listener = None

    async def ack_event(self, event_id: int) -> None:
        """Forget the event; it is never told again."""
        await self._run(partial(self._write, "DELETE FROM event WHERE id = ?", event_id))

    async def has_unacknowledged(self) -> bool:
        """Whether any event still waits for its acknowledgement."""
        return bool(await self._run(partial(self._rows, "SELECT id FROM event LIMIT 1")))

    async def active_backends(self) -> dict[str, BackendState]:
        """All backends that are not terminated, with their states."""
        rows = await self._run(
            partial(
                self._rows,
                "SELECT id, state FROM backend WHERE json_extract(state, '$.status') <> ? ORDER BY rowid",
                str(BackendStatus.TERMINATED),
            )
        )
        return {backend_id: state_from_json(state) for backend_id, state in rows}

    async def _run(self, work: Callable[[], T], then: Callable[[T], None] | None = None) -> T:
        """Do ``work`` on the store's thread, then ``then`` with its result here, both even if the caller goes."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        if then is not None:
            future.add_done_callback(
                lambda done: then(done.result()) if not done.cancelled() and done.exception() is None else None
            )
        return await asyncio.shield(future)

    def _register(self, backend_id: str, state: BackendState, timestamp: DroneTime) -> BackendEvent:
        text = codec.encode(state).decode()
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(_UPSERT_STATE, (backend_id, text))
            event_id = self._connection.execute(_INSERT_EVENT, (backend_id, text, timestamp.ms)).lastrowid
        assert event_id is not None
        return BackendEvent(event_id, backend_id, state, timestamp)

    def _rows(self, statement: str, *args: object) -> list[tuple[str, ...]]:
        return self._connection.execute(statement, args).fetchall()

    def _write(self, statement: str, *args: object) -> None:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(statement, args)

    def _unacknowledged(self) -> list[BackendEvent]:
        # By id, not by time: a clock may step back (A18).
        rows = self._connection.execute("SELECT id, backend_id, event, timestamp FROM event ORDER BY id")
        return [
            BackendEvent(event_id, backend_id, state_from_json(state), DroneTime(timestamp))
            for event_id, backend_id, state, timestamp in rows
        ]


@asynccontextmanager
async def open_state_store(path: Path | None) -> AsyncIterator[StateStore]:
    """The store at ``path`` (made with mode 0600 if it is not there), or one in memory for None.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="state-store") as thread:
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(thread, _open, path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"--db: the state store {path} cannot be used: {error}") from error
        try:
            yield StateStore(connection, thread)
        finally:
            await loop.run_in_executor(thread, connection.close)


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    # Transactions are begun by hand.
    connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(_SCHEMA)
    return connection
