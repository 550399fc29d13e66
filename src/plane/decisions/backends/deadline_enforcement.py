"""Which backends must be asked to stop, or killed, now? The watchdog's table of deadlines.

`plane.drone.watchdog.main` feeds it the drone's messages and the time, and does what is due. All times are nanoseconds
of CLOCK_BOOTTIME, which also counts while the machine is suspended. Only the standard library: the watchdog must not
depend on anything else (docs/decisions/0012-watchdog.md).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

__all__ = ["DRONE_SILENT_AFTER_NS", "HARD_MARGIN_NS", "QUIET_NS", "DeadlineTable", "DroneStatus", "Step"]

# The drone kills at the hard deadline. The watchdog kills this much later, and 7 s before anybody else gets the key.
HARD_MARGIN_NS = 3_000_000_000
# A drone sends something every second. One that does not is stopped or stuck, and asks no backend to stop.
DRONE_SILENT_AFTER_NS = 5_000_000_000
# An engine that was stopped may still start a container that it was asked to start before. A backend whose deadline
# has passed has ended when nothing of it was alive for this long.
QUIET_NS = 10_000_000_000


class DroneStatus(enum.Enum):
    """What the watchdog knows of its drone. ``SILENT``: it sends nothing. ``GONE``: its socket is closed."""

    ALIVE = "alive"
    SILENT = "silent"
    GONE = "gone"


class Step(enum.Enum):
    """What is due for one backend. ``KILL`` is due at every look, until nothing of the backend is alive."""

    ASK_TO_STOP = "ask to stop"
    KILL = "kill"


@dataclass(slots=True)
class _Held:
    soft_ns: int
    hard_ns: int
    asked: bool = False
    killing: bool = False
    last_alive_ns: int = 0
    ended: bool = False


@dataclass(slots=True)
class DeadlineTable:
    """The deadlines of one drone's backends.

    Args:
        ends_with_drone: backends are killed as soon as the drone is gone, whatever their deadlines are.
    """

    ends_with_drone: bool
    _held: dict[str, _Held] = field(default_factory=dict)
    # Nothing is due before, while the drone is alive: most looks need not go through all backends.
    _next_due_ns: int = 0

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, backend_id: str, soft_ns: int, hard_ns: int) -> None:
        """Set a backend's deadlines. A backend whose end has begun continues to end."""
        held = self._held.setdefault(backend_id, _Held(soft_ns, hard_ns))
        held.soft_ns, held.hard_ns = soft_ns, hard_ns
        self._next_due_ns = min(self._next_due_ns, soft_ns)

    def release(self, backend_id: str) -> None:
        """Forget a backend: it has ended."""
        self._held.pop(backend_id, None)

    def due(self, now_ns: int, drone: DroneStatus) -> list[tuple[str, Step]]:
        """Return what must be done now."""
        if drone is not DroneStatus.GONE and now_ns < self._next_due_ns:
            return []
        steps = []
        for backend_id, held in self._held.items():
            if held.ended:
                continue
            at_once = drone is DroneStatus.GONE and self.ends_with_drone
            if held.killing or at_once or now_ns >= held.hard_ns + HARD_MARGIN_NS:
                if not held.killing:
                    held.killing, held.last_alive_ns = True, now_ns
                steps.append((backend_id, Step.KILL))
            elif drone is not DroneStatus.ALIVE and not held.asked and now_ns >= held.soft_ns:
                held.asked = True
                steps.append((backend_id, Step.ASK_TO_STOP))
        self._next_due_ns = min((held.soft_ns for held in self._held.values() if not held.ended), default=now_ns)
        return steps

    def killed(self, backend_id: str, now_ns: int, *, alive: bool) -> None:
        """Note the result of a `Step.KILL`. ``alive``: something of the backend was there, or nobody knows."""
        held = self._held.get(backend_id)
        if held is None:
            return
        if alive:
            held.last_alive_ns = now_ns
        held.ended = now_ns - held.last_alive_ns >= QUIET_NS

    @property
    def all_ended(self) -> bool:
        """Whether nothing is left to enforce. Without a drone, the watchdog then ends."""
        return all(held.ended for held in self._held.values())
