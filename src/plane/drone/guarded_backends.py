"""What `guard` reads of a drone's state store: the leases of its backends, and what finds their processes.

Only read, and only while no drone has the store. The tables are those of `state_store`, which the drone itself uses;
this needs no event loop, and so a fraction of the memory.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from plane.drone.clock import ClockReading
from plane.protocol import codec
from plane.protocol.errors import MessageError
from plane.protocol.keys import KeyDeadlines
from plane.protocol.times import DroneTime
from plane.runtime.process_handle import ProcessHandle

__all__ = ["GuardedBackend", "read_guarded"]

# What was stored without an order, by an original drone: nobody knows until when its key is held.
UNKNOWN = KeyDeadlines(DroneTime(0), DroneTime(0), DroneTime(0))
# How long the store may be busy.
BUSY_LIMIT_S = 1.0

_CLOCK = "SELECT boot_id, offset_ns FROM drone_clock"
_BACKENDS = """
SELECT backend.id, COALESCE(deadlines, json_extract(spawn_order, '$.key.deadlines')), handle
FROM backend LEFT JOIN backend_run ON backend_run.id = backend.id
WHERE json_extract(state, '$.status') <> 'terminated'
"""


@dataclass(frozen=True, slots=True)
class GuardedBackend:
    """A backend that has not ended, as far as its drone has stored. ``handle``: None if its start was not stored."""

    backend_id: str
    deadlines: KeyDeadlines
    handle: ProcessHandle | None

    @property
    def groups(self) -> list[Path]:
        """Its control group's folders."""
        return [] if self.handle is None else [Path(folder) for folder in self.handle.cgroup.values()]


def read_guarded(db: Path) -> tuple[ClockReading, list[GuardedBackend]]:
    """The drone's clock, in which the deadlines are, and the backends.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    connection = sqlite3.connect(f"{db.as_uri()}?mode=rw", uri=True, timeout=BUSY_LIMIT_S, isolation_level=None)
    try:
        boot_id, offset_ns = connection.execute(_CLOCK).fetchone()
        rows = connection.execute(_BACKENDS).fetchall()
    finally:
        connection.close()
    return ClockReading(boot_id, offset_ns), [
        GuardedBackend(
            backend_id, UNKNOWN if deadlines is None else codec.decode(deadlines, KeyDeadlines), _handle(handle)
        )
        for backend_id, deadlines, handle in rows
    ]


def _handle(text: str | None) -> ProcessHandle | None:
    try:
        return None if text is None else codec.decode(text, ProcessHandle)
    except MessageError:
        return None
