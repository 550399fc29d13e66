"""The interface between a drone and what runs its backends (page 4, "Runtimes")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from plane.protocol.errors import PlaneError
from plane.protocol.keys import AcquiredKey

__all__ = ["BackendFailed", "ExitListener", "Runtime", "StartupTimedOut", "session_environment"]

ExitListener = Callable[[str, int | None, str | None], None]
"""Told of each exit: backend id, exit code (None if unknown; 128 + n for signal n), what to tell people."""


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

    async def close(self) -> None:
        """Free what the runtime holds, once nothing runs any more."""


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
