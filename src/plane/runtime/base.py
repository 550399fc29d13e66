"""The interface between a drone and what runs its backends (page 4, "Runtimes")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from plane.protocol import codec
from plane.protocol.drone_messages import BackendMetrics
from plane.protocol.errors import MessageError, PlaneError
from plane.protocol.keys import AcquiredKey
from plane.protocol.logs import LogPage

__all__ = [
    "BackendFailed",
    "ExitListener",
    "Found",
    "MetricsListener",
    "Runtime",
    "RuntimeListener",
    "StartupTimedOut",
    "check_variables",
    "converted_executable",
    "session_environment",
]

T = TypeVar("T")

ExitListener = Callable[[str, int | None, str | None], None]
"""Told of each exit: backend id, exit code (None if unknown; 128 + n for signal n), what to tell people."""

MetricsListener = Callable[[BackendMetrics], None]
"""Told what a running backend uses, every `plane.timing.METRICS_INTERVAL_S`."""


@dataclass(frozen=True, slots=True)
class RuntimeListener:
    """Who is told what a runtime sees."""

    exited: ExitListener
    measured: MetricsListener = lambda metrics: None


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a backend that a former process of this drone started.

    ``exit_code`` (None if unknown) and ``message`` tell how one that does not run has ended.
    """

    running: bool
    exit_code: int | None = None
    message: str | None = None


class BackendFailed(PlaneError):
    """A backend cannot be prepared, started or ended. The text is for people, and says what to do."""


class StartupTimedOut(BackendFailed):
    """The backend did not answer HTTP in time."""


class Runtime(Protocol):
    """What runs backends. Exits are told to the listener it was made with, once per spawned backend."""

    name: str

    async def prepare(self, executable: Any) -> None:
        """Make sure that the executable can be started; pull its image.

        Raises:
            BackendFailed
        """

    async def spawn(self, backend_id: str, executable: Any, key: AcquiredKey | None, static_token: str | None) -> int:
        """Start the backend; returns the port of this machine where it will listen.

        Raises:
            BackendFailed: nothing runs.
        """

    def handle(self, backend_id: str) -> Any:
        """What `adopt` needs, besides the id, to find a running backend again: JSON, or None for nothing."""

    async def adopt(self, backend_id: str, handle: Any) -> Found:
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

    async def remove_leftover(self, backend_id: str) -> None:
        """Make sure that nothing runs of a backend that another process of this drone may have started.

        Raises:
            BackendFailed
        """

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """A part of what a backend has written: the lines after the time ``after``, else the last ``tail``, else all.

        If there is none yet, waits up to ``wait_s`` for the first. What has ended is kept for
        `plane.timing.ENDED_KEPT_S`.

        Raises:
            NoLogs: nothing can be read of it; says why.
            NothingKept: since it has not begun here, or ended longer ago.
        """

    async def run(self) -> None:
        """Do what is to be done all the time: follow output, measure, prune. Until cancelled."""

    async def close(self, *, leave_running: bool) -> None:
        """End what still runs, unless that is left for the drone's next process, and free what the runtime holds."""


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


def converted_executable(executable: Any, kind: type[T], shape: str) -> T:
    """The executable as ``kind``; ``shape`` shows people what it should look like.

    Raises:
        BackendFailed: names the field.
    """
    try:
        return codec.convert(executable, kind)
    except MessageError as error:
        path = error.path.removeprefix("$")
        raise BackendFailed(f"executable{path}: {error.reason}; the shape is {shape}") from None


def check_variables(env: Mapping[str, str]) -> None:
    """Refuse what cannot be the name of a variable.

    Raises:
        BackendFailed: names it.
    """
    for name in env:
        if not name or "=" in name:
            raise BackendFailed(f"executable.env: {name!r} is no name of a variable")
