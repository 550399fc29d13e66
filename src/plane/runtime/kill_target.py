"""Where the processes of a running backend are: what the drone's watchdog needs to kill it.

Made by the runtimes, used by `plane.drone.watchdog`. Only the standard library, as there.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ContainerTarget", "KillTarget", "ProcessTarget"]


@dataclass(frozen=True, slots=True)
class ProcessTarget:
    """A backend that is a process of this machine.

    Attributes:
        groups: folders of its control group.
        pid, started_at: its supervisor, and that process's start time (see `plane.runtime.process.procfs.start_time`).
            0: it
            may be starting at this moment, and is found by its control group and its environment.
        bubblewrap: the supervisor is bubblewrap.
        output: the file that it appends its output to.
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
        name: the container's.
        pid, started_at: its first process, and that process's start time. 0: not known.
    """

    engine: str
    name: str
    pid: int = 0
    started_at: int = 0


KillTarget = ProcessTarget | ContainerTarget
