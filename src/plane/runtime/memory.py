"""The fake that ships: backends that exist in memory only. For tests of everything above a runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from plane.protocol.keys import AcquiredKey
from plane.protocol.logs import LogPage
from plane.runtime.base import AdoptionResult, BackendFailed, RuntimeListener, StartupTimedOut, check_deadline

__all__ = ["MemoryRuntime"]


class MemoryRuntime:
    """Does what its executables say: ``{"fail": "prepare" | "spawn" | "start", "ignores_stop": bool}``."""

    name = "memory"

    def __init__(self, listener: RuntimeListener, *, grace_s: float = 0.05) -> None:
        self._listener = listener
        self._grace_s = grace_s
        self._running: dict[str, dict[str, Any]] = {}
        self.spawned: list[str] = []

    async def prepare(self, executable: Any) -> None:
        """Fails if the executable says so."""
        if executable.get("fail") == "prepare":
            raise BackendFailed("cannot be prepared")

    async def spawn(
        self,
        backend_id: str,
        executable: Any,
        key: AcquiredKey | None,
        static_token: str | None,
        not_after_ns: int | None = None,
    ) -> int:
        """Runs it, at port 1."""
        check_deadline(not_after_ns)
        if executable.get("fail") == "spawn":
            raise BackendFailed("cannot be started")
        self._running[backend_id] = executable
        self.spawned.append(backend_id)
        return 1

    def handle(self, backend_id: str) -> Any:
        """Nothing outlives this process."""

    async def adopt(self, backend_id: str, handle: Any) -> AdoptionResult:
        """Finds what still runs in it, which is only there if the drone, but not this runtime, began anew."""
        return AdoptionResult(running=backend_id in self._running)

    async def wait_for_backend(self, backend_id: str, host: str, port: int) -> None:
        """Ready at once, unless the executable says otherwise."""
        if self._running.get(backend_id, {}).get("fail") == "start":
            raise StartupTimedOut("did not answer")

    async def terminate(self, backend_id: str, *, hard: bool) -> bool:
        """Ends it: at once, or after the grace if it is hard of hearing."""
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
        """The backend exits by itself."""
        if self._running.pop(backend_id, None) is not None:
            self._listener.exited(backend_id, code, message)

    async def remove_orphan(self, backend_id: str) -> None:
        """Nothing outlives this process."""

    def extend(self, backend_id: str, hard_deadline_ns: int) -> None:
        """The drone's own deadlines are enough for what is in its memory."""

    async def remove_orphans(self, known: Collection[str]) -> list[str]:
        """Nothing outlives this process."""
        return []

    async def read_logs(self, backend_id: str, after: int | None, tail: int | None, wait_s: float) -> LogPage:
        """Nothing is written."""
        return LogPage([], ended=backend_id not in self._running)

    async def run(self) -> None:
        """There is nothing to follow."""
        await asyncio.Event().wait()

    async def close(self, *, leave_running: bool) -> None:
        """Ends what still runs."""
        if not leave_running:
            for backend_id in list(self._running):
                self.exit(backend_id, 137)
