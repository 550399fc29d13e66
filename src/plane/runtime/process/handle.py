"""What is remembered of a backend's process, so that a restarted drone finds it again."""

from __future__ import annotations

import msgspec

__all__ = ["ProcessHandle"]


class ProcessHandle(msgspec.Struct, frozen=True):
    """Stored as JSON by the drone. ``pid`` is the supervisor's; ``cgroup``: folders of its group by controller.

    ``relay``: process id and start time of the relay to its network, see `plane.runtime.network.relay_program`.
    """

    pid: int
    started_at: int
    bubblewrap: bool
    memory_limit_bytes: int | None = None
    relay: tuple[int, int] | None = None
    cgroup: dict[str, str] = msgspec.field(default_factory=dict)
