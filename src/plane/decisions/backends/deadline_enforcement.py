"""Decide which backends the watchdog must stop or kill now: its table of deadlines.

`plane.drone.watchdog.main` feeds it the drone's messages and the time, and does what is due. All times are nanoseconds
of CLOCK_BOOTTIME, which also counts while the machine is suspended. Like the whole watchdog, this file imports only the
standard library (docs/decisions/0012-watchdog.md).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

__all__ = ["DRONE_SILENT_AFTER_NS", "HARD_MARGIN_NS", "QUIET_NS", "DeadlineTable", "DroneStatus", "Step"]

# The drone kills at the hard deadline. The watchdog kills this much later, 7 s before another drone may get the key.
HARD_MARGIN_NS = 3_000_000_000
# A drone sends a message every second. A silent one is stopped or stuck, and stops no backend itself.
DRONE_SILENT_AFTER_NS = 5_000_000_000
# A stopped Docker engine may later execute a request to start a container. So a backend whose deadline has passed
# counts as ended only after nothing of it was alive for this long.
QUIET_NS = 10_000_000_000


class DroneStatus(enum.Enum):
    """The state of the drone, as the watchdog sees it. ``SILENT``: it sends nothing. ``GONE``: its socket is closed."""

    ALIVE = "alive"
    SILENT = "silent"
    GONE = "gone"


class Step(enum.Enum):
    """What is due for one backend. ``KILL`` is due at each call of `due`, until nothing of the backend is alive."""

    REQUEST_STOP = "request stop"
    KILL = "kill"


@dataclass(slots=True)
class _Entry:
    soft_ns: int
    hard_ns: int
    stop_requested: bool = False
    killing: bool = False
    last_alive_ns: int = 0
    ended: bool = False


@dataclass(slots=True)
class DeadlineTable:
    """The deadlines of one drone's backends.

    Args:
        ends_with_drone: whether backends are killed as soon as the drone is gone, whatever their deadlines are.
    """

    ends_with_drone: bool
    _entries: dict[str, _Entry] = field(default_factory=dict)
    # While the drone is alive, nothing is due before this time, so most calls of `due` return at once.
    _next_due_ns: int = 0

    def __len__(self) -> int:
        return len(self._entries)

    def set_deadlines(self, backend_id: str, soft_ns: int, hard_ns: int) -> None:
        """Set the deadlines of a backend. A kill that has begun continues."""
        entry = self._entries.setdefault(backend_id, _Entry(soft_ns, hard_ns))
        entry.soft_ns, entry.hard_ns = soft_ns, hard_ns
        self._next_due_ns = min(self._next_due_ns, soft_ns)

    def release(self, backend_id: str) -> None:
        """Remove a backend that has ended."""
        self._entries.pop(backend_id, None)

    def due(self, now_ns: int, drone: DroneStatus) -> list[tuple[str, Step]]:
        """Return the due steps by backend id."""
        if drone is not DroneStatus.GONE and now_ns < self._next_due_ns:
            return []
        steps = []
        for backend_id, entry in self._entries.items():
            if entry.ended:
                continue
            immediately = drone is DroneStatus.GONE and self.ends_with_drone
            if entry.killing or immediately or now_ns >= entry.hard_ns + HARD_MARGIN_NS:
                if not entry.killing:
                    entry.killing, entry.last_alive_ns = True, now_ns
                steps.append((backend_id, Step.KILL))
            elif drone is not DroneStatus.ALIVE and not entry.stop_requested and now_ns >= entry.soft_ns:
                entry.stop_requested = True
                steps.append((backend_id, Step.REQUEST_STOP))
        self._next_due_ns = min((entry.soft_ns for entry in self._entries.values() if not entry.ended), default=now_ns)
        return steps

    def record_kill(self, backend_id: str, now_ns: int, *, alive: bool) -> None:
        """Record the result of a `Step.KILL`.

        Args:
            alive: whether something of the backend was alive, or may have been.
        """
        entry = self._entries.get(backend_id)
        if entry is None:
            return
        if alive:
            entry.last_alive_ns = now_ns
        entry.ended = now_ns - entry.last_alive_ns >= QUIET_NS

    @property
    def all_ended(self) -> bool:
        """Whether no deadline is left to enforce. If the drone is gone, the watchdog then exits."""
        return all(entry.ended for entry in self._entries.values())
