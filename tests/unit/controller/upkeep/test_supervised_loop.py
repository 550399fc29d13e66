"""Background loops survive their errors."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from plane.controller.upkeep.supervised_loop import MAX_RESTART_DELAY_S, run_supervised
from plane.database.pool import DatabaseUnavailable


async def test_loop_is_restarted_with_a_growing_delay() -> None:
    delays: list[float] = []

    async def sleep(delay_s: float) -> None:
        delays.append(delay_s)

    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs <= 40:
            raise DatabaseUnavailable("away") if runs % 2 else KeyError("unexpected")

    with capture_logs() as logs:
        await run_supervised("sweeper", loop, sleep=sleep)
    assert runs == 41
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (1.0, MAX_RESTART_DELAY_S)
    assert {(entry["event"], entry["log_level"], entry["loop"]) for entry in logs} == {
        ("background loop waits for the database", "warning", "sweeper"),
        ("background loop failed; restarting", "error", "sweeper"),
    }


async def test_cancellation_ends_the_loop() -> None:
    async def loop() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(run_supervised("sweeper", loop))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
