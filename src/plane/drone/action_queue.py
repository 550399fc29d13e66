"""Apply the actions of controllers once each, in order for each backend, independently of connections.

An action continues when the connection that delivered it ends: a backend whose spawn was interrupted would be stored
and never run. Owned by `plane.drone.backend_manager`; `plane.drone.agent` delivers actions and sends acknowledgements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from plane.protocol.drone_messages import BackendAction
from plane.tasks import OwnedTasks
from plane.throttled_log import ThrottledWarning

__all__ = ["ActionQueue"]

# Actions that are being applied or wait for an earlier one. A controller resends actions that are not accepted.
ACTIONS_LIMIT = 10_000

log = structlog.get_logger("plane.drone")


class ActionQueue:
    """The pending actions of one drone.

    Args:
        apply: applies one action. If it returns False or raises, the action is not acknowledged.
    """

    def __init__(self, apply: Callable[[BackendAction], Awaitable[bool]]) -> None:
        self._apply = apply
        self._tasks = OwnedTasks(lambda error: log.error("action task failed", exc_info=error))
        self._accepted: set[str] = set()
        # The last pending action of each backend.
        self._last: dict[str, asyncio.Task[None]] = {}
        self._too_many = ThrottledWarning(log, "too many pending actions; the controller will resend them")

    def accept(self, action: BackendAction, acknowledge: Callable[[str], None]) -> None:
        """Apply an action after the earlier ones of its backend, then call ``acknowledge`` with its id.

        An action that arrives again while it is pending is acknowledged once.
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
            log.exception("action failed; the controller will resend it", action=action.action_id)
        finally:
            self._accepted.discard(action.action_id)
            if self._last.get(action.backend_id) is asyncio.current_task():
                del self._last[action.backend_id]

    async def end(self) -> None:
        """Cancel all pending actions."""
        await self._tasks.end()
        self._too_many.end()
