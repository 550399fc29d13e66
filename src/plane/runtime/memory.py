"""A fake runtime whose backends exist in memory only, for tests of everything above a runtime.

The suite of the real runtimes (``tests/integration/test_runtimes.py``) tests it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from plane.protocol.logs import LogPage
from plane.runtime.base import (
    AdoptionResult,
    BackendFailed,
    RuntimeListener,
    SpawnRequest,
    StartupTimedOut,
    check_deadline,
)

__all__ = ["MemoryRuntime"]


class MemoryRuntime:
    """Behaves as its executables say: ``{"fail": "prepare" | "spawn" | "start", "ignores_stop": bool}``.

    Attributes:
        spawned: the ids of all backends that were started, in order.
    """

    name = "memory"

    def __init__(self, *, grace_s: float = 0.05) -> None:
        self._listener: RuntimeListener
        self._grace_s = grace_s
        self._running: dict[str, dict[str, Any]] = {}
        self.spawned: list[str] = []

    async def start(self, listener: RuntimeListener) -> None:
        """Report exits to ``listener`` from now on."""
        self._listener = listener

    async def prepare(self, executable: Any) -> Any:
        """Fail if the executable says so."""
        if executable.get("fail") == "prepare":
            raise BackendFailed("cannot be prepared")
        return executable

    async def spawn(self, request: SpawnRequest) -> int:
        """Start the backend on port 1."""
        check_deadline(request.hard_deadline_ns)
        if request.executable.get("fail") == "spawn":
            raise BackendFailed("cannot be started")
        self._running[request.backend_id] = request.executable
        self.spawned.append(request.backend_id)
        return 1

    def handle(self, backend_id: str) -> Any:
        """Return None: no backend outlives this process."""

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        """Find a backend that still runs because the drone was replaced and this runtime was not."""
        return AdoptionResult(running=backend_id in self._running)

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Return at once, unless the executable fails to become ready."""
        if self._running.get(backend_id, {}).get("fail") == "start":
            raise StartupTimedOut("did not respond")

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """End the backend: at once, or after the grace period if it ignores the request to stop."""
        executable = self._running.get(backend_id)
        if executable is None:
            return False
        loop = asyncio.get_running_loop()
        if hard:
            loop.call_soon(self.exit, backend_id, 137)
        elif executable.get("ignores_stop"):
            loop.call_later(self._grace_s, self.exit, backend_id, 137)
        else:
            loop.call_soon(self.exit, backend_id, 0)
        return True

    def exit(self, backend_id: str, code: int, message: str | None = None) -> None:
        """Let the backend exit by itself."""
        if self._running.pop(backend_id, None) is not None:
            self._listener.on_exit(backend_id, code, message)

    async def remove_orphan(self, backend_id: str) -> None:
        """Do nothing: no backend outlives this process."""

    def extend_deadline(self, backend_id: str, hard_deadline_ns: int) -> None:
        """Do nothing: the drone enforces the deadlines of backends in its own memory."""

    async def remove_orphans(self, known: Collection[str]) -> list[str]:
        """Return nothing: no backend outlives this process."""
        return []

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """Return an empty page: these backends write nothing."""
        return LogPage([], ended=backend_id not in self._running)

    async def run(self) -> None:
        """Wait until cancelled: there is nothing to collect or measure."""
        await asyncio.Event().wait()

    async def close(self, *, leave_running: bool) -> None:
        """End what still runs, unless it is left running."""
        if not leave_running:
            for backend_id in list(self._running):
                self.exit(backend_id, 137)
