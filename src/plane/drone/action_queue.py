"""Applies the actions that controllers send: in order for each backend, each once, whatever their connection does.

An action whose connection ends is finished all the same: a backend that was half begun would be stored, and never run.
Owned by `plane.drone.backend_manager`; `plane.drone.agent` brings the actions and sends the acknowledgements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from plane.protocol.drone_messages import BackendAction
from plane.tasks import OwnedTasks
from plane.throttled_log import ThrottledWarning

__all__ = ["ActionQueue"]

# Actions that are being applied or wait for one before them. A controller sends what is not accepted again.
ACTIONS_LIMIT = 10_000

log = structlog.get_logger("plane.drone")


class ActionQueue:
    """The actions of one drone.

    Args:
        apply: applies one; False, or an exception: it is not applied, and must not be acknowledged.
    """

    def __init__(self, apply: Callable[[BackendAction], Awaitable[bool]]) -> None:
        self._apply = apply
        self._tasks = OwnedTasks(lambda error: log.error("action failed", exc_info=error))
        self._accepted: set[str] = set()
        # The last action of each backend that is not applied yet.
        self._last: dict[str, asyncio.Task[None]] = {}
        self._too_many = ThrottledWarning(log, "too many actions at once; they are accepted when they come again")

    def accept(self, action: BackendAction, acknowledge: Callable[[str], None]) -> None:
        """Apply an action after those before it; then call ``acknowledge`` with its id.

        An action that comes again while it is being applied is acknowledged once.
        """
        if action.action_id in self._accepted:
            return
        if len(self._accepted) >= ACTIONS_LIMIT:
            self._too_many.warn(limit=ACTIONS_LIMIT)
            return
        self._accepted.add(action.action_id)
        before = self._last.get(action.backend_id)
        self._last[action.backend_id] = self._tasks.start(self._run(action, before, acknowledge))

    async def _run(
        self, action: BackendAction, before: asyncio.Task[None] | None, acknowledge: Callable[[str], None]
    ) -> None:
        try:
            if before is not None:
                await asyncio.wait([before])
            if await self._apply(action):
                acknowledge(action.action_id)
        except Exception:
            log.exception("action not applied; it will come again", action=action.action_id)
        finally:
            self._accepted.discard(action.action_id)
            if self._last.get(action.backend_id) is asyncio.current_task():
                del self._last[action.backend_id]

    async def end(self) -> None:
        """Cancel what is being applied; when the drone stops."""
        await self._tasks.end()
        self._too_many.end()
