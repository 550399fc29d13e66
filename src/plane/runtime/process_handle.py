"""What is remembered of a backend's process, so that it is found again: by `process`, and by `plane.drone.guard`."""

from __future__ import annotations

import msgspec

__all__ = ["ProcessHandle"]


class ProcessHandle(msgspec.Struct, frozen=True):
    """Stored as JSON by the drone. ``pid`` is the supervisor's; ``cgroup``: folders of its group by controller."""

    pid: int
    started_at: int
    bubblewrap: bool
    memory_limit_bytes: int | None = None
    cgroup: dict[str, str] = msgspec.field(default_factory=dict)
