"""Actions of different backends are applied concurrently, and a failed one is not acknowledged."""

from __future__ import annotations

import asyncio

import pytest

from plane.drone import action_queue
from plane.drone.action_queue import ActionQueue
from plane.protocol.backend_state import TerminationKind, TerminationReason
from plane.protocol.drone_messages import BackendAction, BackendOrder, TerminateOrder


def action(action_id: str, backend: str) -> BackendAction:
    order = BackendOrder(terminate=TerminateOrder(TerminationKind.SOFT, TerminationReason.EXTERNAL))
    return BackendAction(action_id, backend, 1, order)


async def test_an_action_that_fails_or_is_refused_is_not_acknowledged() -> None:
    applied: list[str] = []

    async def apply(action: BackendAction) -> bool:
        applied.append(action.action_id)
        if action.action_id == "fails":
            raise ZeroDivisionError("a defect")
        return action.action_id != "refused"

    queue, acknowledged = ActionQueue(apply), asyncio.Queue[str]()
    for each in ("fails", "refused", "applied"):
        queue.accept(action(each, "b"), acknowledged.put_nowait)
    async with asyncio.timeout(10):
        assert await acknowledged.get() == "applied"
    assert applied == ["fails", "refused", "applied"]
    # The controller resends it.
    queue.accept(action("refused", "b"), acknowledged.put_nowait)
    await queue.end()
    assert acknowledged.empty()


async def test_actions_beyond_the_limit_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action_queue, "ACTIONS_LIMIT", 2)
    applied: list[str] = []
    may_continue = asyncio.Event()

    async def apply(action: BackendAction) -> bool:
        applied.append(action.action_id)
        await may_continue.wait()
        return True

    queue, acknowledged = ActionQueue(apply), asyncio.Queue[str]()
    for number in range(3):
        queue.accept(action(f"ak-{number}", f"b{number}"), acknowledged.put_nowait)
    may_continue.set()
    async with asyncio.timeout(10):
        assert {await acknowledged.get(), await acknowledged.get()} == {"ak-0", "ak-1"}
    assert applied == ["ak-0", "ak-1"]
    await queue.end()
