"""The interface between a drone and the runtime that executes its backends.

`plane.runtime.docker`, `plane.runtime.process`, `plane.runtime.remote` and `plane.runtime.memory` implement it;
`plane.drone` and `plane.executor` use it. The session environment and the runtimes' rules:
`docs/reference/protocol/drone.md`.
"""

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
    "ExitCallback",
    "LocationCallback",
    "MetricsCallback",
    "Runtime",
    "RuntimeListener",
    "SpawnRequest",
    "StartupTimedOut",
    "check_deadline",
    "check_variable_names",
    "parse_executable",
    "session_environment",
]

T = TypeVar("T")

ExitCallback = Callable[[str, int | None, str | None], None]
"""Called with the backend id, the exit code (None if unknown; 128 + n for signal n) and a message for people."""

MetricsCallback = Callable[[BackendMetrics], None]
"""Called with the resource usage of a running backend, every `plane.timing.METRICS_INTERVAL_S`."""

LocationCallback = Callable[[str, KillTarget], None]
"""Called with a backend id and where its processes are: just before its start, and again once they are known."""


@dataclass(frozen=True, slots=True)
class RuntimeListener:
    """The callbacks of a runtime. They are called from the event loop and must not block.

    Attributes:
        on_exit: called once for each spawned or adopted backend.
    """

    on_exit: ExitCallback
    on_metrics: MetricsCallback = lambda metrics: None
    on_location: LocationCallback = lambda backend_id, target: None


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """One backend to start.

    Attributes:
        executable: what `Runtime.prepare` returned, or the executable as the drone received it.
        static_token: passed to the backend in its session environment.
        hard_deadline_ns: the hard deadline of its lease, in nanoseconds of CLOCK_BOOTTIME. The drone's process may be
            stopped (SIGSTOP, suspend) at any point of a start, and must not complete it after the deadline.
    """

    backend_id: str
    executable: Any
    key: AcquiredKey | None = None
    static_token: str | None = None
    hard_deadline_ns: int | None = None


@dataclass(frozen=True, slots=True)
class AdoptionResult:
    """The state of a backend that a former process of this drone started.

    Attributes:
        exit_code: of a backend that no longer runs; None if unknown.
        message: how it ended, for people; None if unknown or clean.
    """

    running: bool
    exit_code: int | None = None
    message: str | None = None


class BackendFailed(PlaneError):
    """A backend cannot be prepared, started or terminated. The message is shown to people and says what to do."""


class DeadlinesNotEnforced(PlaneError):
    """No watchdog confirms that it enforces the deadlines, so no backend may be started."""


class StartupTimedOut(BackendFailed):
    """The backend did not respond to HTTP within the startup timeout."""


class DeadlineEnforcer(Protocol):
    """Kills backends at their hard deadlines if this process fails to: `plane.drone.watchdog.supervisor`."""

    def enforce(self, backend_id: str, soft_ns: int, hard_ns: int) -> None:
        """Set the deadlines of a backend, in nanoseconds of CLOCK_BOOTTIME."""

    def release(self, backend_id: str) -> None:
        """Stop enforcing the deadlines of a backend, which has ended."""

    async def wait_confirmed(self) -> None:
        """Return once all deadlines that were set before this call are enforced.

        Raises:
            DeadlinesNotEnforced: they were not confirmed within the timeout.
        """


class Runtime(Protocol):
    """Executes backends. Reports each exit to its listener, once per spawned or adopted backend."""

    name: str

    async def start(self, listener: RuntimeListener) -> None:
        """Begin to report to ``listener``. Called once, before every other method."""

    async def prepare(self, executable: Any) -> Any:
        """Ensure that the executable can be started, and pull its image. Return it for `SpawnRequest.executable`.

        Raises:
            BackendFailed: names the field of the executable and what it must be.
        """

    async def spawn(self, request: SpawnRequest) -> int:
        """Start a backend. Return the port of this machine on which it will listen.

        Raises:
            BackendFailed: nothing runs.
        """

    def extend_deadline(self, backend_id: str, hard_deadline_ns: int) -> None:
        """Set a later hard deadline (CLOCK_BOOTTIME). For runtimes whose deadlines another program enforces."""

    def handle(self, backend_id: str) -> Any:
        """Return what `adopt` needs, besides the id, to find a running backend again: JSON, or None for nothing."""

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        """Take over a backend that a former process of this drone started, and report its exit from then on.

        Raises:
            BackendFailed: it is not known whether the backend runs; try again.
        """

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Return once the backend responds to HTTP.

        Raises:
            StartupTimedOut: it did not within the startup timeout.
        """

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """Kill the backend, or ask it to stop and kill it after the grace period. Return without waiting for the exit.

        Return False if it was not running; then no exit will be reported.

        Raises:
            BackendFailed: it is not known whether the backend runs; try again.
        """

    async def remove_orphan(self, backend_id: str) -> None:
        """Ensure that nothing runs of a backend that another process of this drone may have started.

        Raises:
            BackendFailed: it is not known whether something runs; try again.
        """

    async def remove_orphans(self, known: Collection[str]) -> list[str]:
        """End everything that carries this drone's identity and whose id is not in ``known``. Return the ended ids.

        Raises:
            BackendFailed: it is not known whether there are orphans; try again.
        """

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """Return a page of a backend's output: the lines after the time ``after``, else the last ``tail``, else all.

        If there is none yet, wait up to ``wait_s`` for the first. Output is retained after the end for
        `plane.timing.ENDED_RETENTION_S`.

        Raises:
            LogsUnavailable: the output cannot be read; the message says why.
            LogsNotRetained: the backend never ran here, or its output has been deleted.
        """

    async def run(self) -> None:
        """Collect output, measure and prune until cancelled."""

    async def close(self, *, leave_running: bool) -> None:
        """Kill the backends, unless they are left for the drone's next process, and free all resources."""


def check_deadline(hard_deadline_ns: int | None) -> None:
    """Refuse a start whose lease has expired meanwhile.

    Raises:
        BackendFailed: the deadline has passed.
    """
    if hard_deadline_ns is not None and time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= hard_deadline_ns:
        raise BackendFailed("its key's lease expired before it was started; connect again")


def session_environment(
    backend_id: str, port: int, key: AcquiredKey | None, static_token: str | None
) -> dict[str, str]:
    """Return the environment variables that every backend receives."""
    variables = {"PORT": str(port), "SESSION_BACKEND_ID": backend_id}
    if key is not None:
        variables["SESSION_BACKEND_FENCING_TOKEN"] = str(key.token)
        variables["SESSION_BACKEND_KEY"] = key.key.name
    if static_token is not None:
        variables["SESSION_BACKEND_STATIC_TOKEN"] = static_token
    return variables


def parse_executable(executable: Any, kind: type[T], shape: str) -> T:
    """Return the executable as an object of ``kind``. ``shape`` shows people the expected JSON.

    Raises:
        BackendFailed: names the invalid field.
    """
    try:
        return codec.convert(executable, kind)
    except MessageError as error:
        path = error.path.removeprefix("$")
        raise BackendFailed(f"executable{path}: {error.reason}; the shape is {shape}") from None


def check_variable_names(env: Mapping[str, str]) -> None:
    """Refuse names that no environment variable can have.

    Raises:
        BackendFailed: names the variable.
    """
    for name in env:
        if not name or "=" in name:
            raise BackendFailed(f"executable.env: {name!r} is not a valid name of a variable")
