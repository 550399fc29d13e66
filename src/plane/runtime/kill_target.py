"""The location of a running backend's processes: what the drone's watchdog needs to kill it.

The runtimes create targets; `plane.drone.watchdog` uses them. Imports only the standard library, like the watchdog.
Field names are part of the messages to the watchdog (`plane.drone.watchdog.messages`).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ContainerTarget", "KillTarget", "ProcessTarget"]


@dataclass(frozen=True, slots=True)
class ProcessTarget:
    """A backend that is a process of this machine.

    Attributes:
        groups: folders of its control group.
        pid: id of its supervisor. 0: the backend may be starting at this moment, and is found by its control group and
            its environment.
        started_at: the supervisor's start time, see `plane.runtime.process.procfs.start_time`.
        bubblewrap: whether the supervisor is bubblewrap.
        output: the file to which it appends its output.
    """

    groups: tuple[str, ...] = ()
    pid: int = 0
    started_at: int = 0
    bubblewrap: bool = False
    output: str = ""


@dataclass(frozen=True, slots=True)
class ContainerTarget:
    """A backend that is a container.

    Attributes:
        engine: path of the engine's Unix socket.
        name: name of the container.
        pid: id of its first process; 0 if unknown.
        started_at: that process's start time.
    """

    engine: str
    name: str
    pid: int = 0
    started_at: int = 0


KillTarget = ProcessTarget | ContainerTarget
