"""The interface between a drone and what runs its backends (page 4, "Runtimes")."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from plane.protocol import codec
from plane.protocol.drone_messages import BackendMetrics
from plane.protocol.errors import MessageError, PlaneError
from plane.protocol.keys import AcquiredKey
from plane.protocol.logs import LogPage
from plane.runtime.kill_target import KillTarget

__all__ = [
    "AdoptionResult",
    "BackendFailed",
    "DeadlineEnforcer",
    "DeadlinesNotEnforced",
    "ExitListener",
    "LocationListener",
    "MetricsListener",
    "Runtime",
    "RuntimeListener",
    "StartupTimedOut",
    "check_deadline",
    "check_variable_names",
    "parse_executable",
    "session_environment",
]

T = TypeVar("T")

ExitListener = Callable[[str, int | None, str | None], None]
"""Told of each exit: backend id, exit code (None if unknown; 128 + n for signal n), what to tell people."""

MetricsListener = Callable[[BackendMetrics], None]
"""Told what a running backend uses, every `plane.timing.METRICS_INTERVAL_S`."""


LocationListener = Callable[[str, KillTarget], None]
"""Called with a backend id and where its processes are: just before its start, and again once they are known."""


@dataclass(frozen=True, slots=True)
class RuntimeListener:
    """Who is told what a runtime sees."""

    exited: ExitListener
    measured: MetricsListener = lambda metrics: None
    located: LocationListener = lambda backend_id, target: None


@dataclass(frozen=True, slots=True)
class AdoptionResult:
    """What there is of a backend that a former process of this drone started.

    ``exit_code`` (None if unknown) and ``message`` tell how one that does not run has ended.
    """

    running: bool
    exit_code: int | None = None
    message: str | None = None


class BackendFailed(PlaneError):
    """A backend cannot be prepared, started or ended. The text is for people, and says what to do."""


class DeadlinesNotEnforced(PlaneError):
    """No watchdog answers at the moment, so nothing may be started: nobody else would enforce its lease."""


class StartupTimedOut(BackendFailed):
    """The backend did not answer HTTP in time."""


class DeadlineEnforcer(Protocol):
    """Kills backends at their hard deadlines if this process does not: `plane.drone.watchdog.supervisor`."""

    def hold(self, backend_id: str, soft_ns: int, hard_ns: int) -> None:
        """Have a backend's deadlines enforced, in nanoseconds of CLOCK_BOOTTIME."""

    def release(self, backend_id: str) -> None:
        """A backend has ended."""

    async def confirmed(self) -> None:
        """Return once all that was held until now is enforced.

        Raises:
            DeadlinesNotEnforced
        """


class Runtime(Protocol):
    """What runs backends. Exits are told to the listener it was made with, once per spawned backend."""

    name: str

    async def prepare(self, executable: Any) -> None:
        """Make sure that the executable can be started; pull its image.

        Raises:
            BackendFailed
        """

    async def spawn(
        self,
        backend_id: str,
        executable: Any,
        key: AcquiredKey | None,
        static_token: str | None,
        not_after_ns: int | None = None,
    ) -> int:
        """Start the backend; returns the port of this machine where it will listen.

        ``not_after_ns``: the hard deadline of its lease (CLOCK_BOOTTIME). This process may be stopped at any point of
        a start, and must not complete it when it continues after the deadline.

        Raises:
            BackendFailed: nothing runs.
        """

    def extend(self, backend_id: str, hard_deadline_ns: int) -> None:
        """The lease was renewed until then (CLOCK_BOOTTIME). For runtimes whose deadlines another program enforces."""

    def handle(self, backend_id: str) -> Any:
        """What `adopt` needs, besides the id, to find a running backend again: JSON, or None for nothing."""

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        """Take over a backend that a former process of this drone started; from then on its exit is told.

        Raises:
            BackendFailed: not known whether it runs; try again.
        """

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Return once the backend answers HTTP.

        Raises:
            StartupTimedOut
        """

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """Kill the backend, or ask it to stop and kill it after the grace. Returns at once.

        False: it was not running, and no exit will be told.

        Raises:
            BackendFailed: not known whether it runs; try again.
        """

    async def remove_orphan(self, backend_id: str) -> None:
        """Make sure that nothing runs of a backend that another process of this drone may have started.

        Raises:
            BackendFailed
        """

    async def remove_orphans(self, known: Collection[str]) -> list[str]:
        """End everything that carries this drone's identity and is of no backend in ``known``; returns their ids.

        Raises:
            BackendFailed: not known whether there is any; try again.
        """

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """A part of what a backend has written: the lines after the time ``after``, else the last ``tail``, else all.

        If there is none yet, waits up to ``wait_s`` for the first. What has ended is kept for
        `plane.timing.ENDED_RETENTION_S`.

        Raises:
            LogsUnavailable: nothing can be read of it; says why.
            LogsNotRetained: since it has not begun here, or ended longer ago.
        """

    async def run(self) -> None:
        """Do what is to be done all the time: follow output, measure, prune. Until cancelled."""

    async def close(self, *, leave_running: bool) -> None:
        """End what still runs, unless that is left for the drone's next process, and free what the runtime holds."""


def check_deadline(not_after_ns: int | None) -> None:
    """Refuse a start whose lease has expired meanwhile.

    Raises:
        BackendFailed
    """
    if not_after_ns is not None and time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= not_after_ns:
        raise BackendFailed("its key's lease expired before it was started; connect again")


def session_environment(
    backend_id: str, port: int, key: AcquiredKey | None, static_token: str | None
) -> dict[str, str]:
    """The session backend environment: variables that every backend is given (page 4)."""
    variables = {"PORT": str(port), "SESSION_BACKEND_ID": backend_id}
    if key is not None:
        variables["SESSION_BACKEND_FENCING_TOKEN"] = str(key.token)
        variables["SESSION_BACKEND_KEY"] = key.key.name
    if static_token is not None:
        variables["SESSION_BACKEND_STATIC_TOKEN"] = static_token
    return variables


def parse_executable(executable: Any, kind: type[T], shape: str) -> T:
    """The executable as ``kind``; ``shape`` shows people what it should look like.

    Raises:
        BackendFailed: names the field.
    """
    try:
        return codec.convert(executable, kind)
    except MessageError as error:
        path = error.path.removeprefix("$")
        raise BackendFailed(f"executable{path}: {error.reason}; the shape is {shape}") from None


def check_variable_names(env: Mapping[str, str]) -> None:
    """Refuse what cannot be the name of a variable.

    Raises:
        BackendFailed: names it.
    """
    for name in env:
        if not name or "=" in name:
            raise BackendFailed(f"executable.env: {name!r} is no name of a variable")
