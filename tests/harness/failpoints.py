"""A controller that dies, or stops, at a chosen step: ``python failpoints.py STEP plane-arguments…``.

It is the real program; only `Database.fetch` is wrapped, to end the process as kill -9 would, right before or after a
statement is sent, or while it runs. `STOP_IN_REAPER` stops it (SIGSTOP) while its reaper's transaction is open.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

__all__ = ["STEPS", "STOP_IN_REAPER"]

STOP_IN_REAPER = "stop in the reaper"

# Every step of a connect at which a controller may die.
STEPS = (
    "before look_up_keys",
    "during look_up_keys",
    "after look_up_keys",
    "before spawn_backends",
    "during spawn_backends",
    "after spawn_backends",
)


def _arm(step: str) -> None:
    from plane.database.pool import Database
    from plane.database.statements import statements

    when, _, name = step.partition(" ")
    doomed = statements("connect")[name]
    fetch = Database.fetch

    async def dying_fetch(self: Database, statement: str, *args: Any) -> Any:
        if statement != doomed:
            return await fetch(self, statement, *args)
        if when == "before":
            os._exit(9)
        under_way = asyncio.ensure_future(fetch(self, statement, *args))
        if when == "during":
            # The statement is sent; whether it is done is PostgreSQL's affair.
            await asyncio.sleep(0.001)
        else:
            await under_way
        os._exit(9)

    Database.fetch = dying_fetch  # type: ignore[method-assign]


def _arm_reaper() -> None:
    from plane.controller.upkeep import reaper

    record_states = vars(reaper)["record_states"]

    async def stopping(*args: Any) -> Any:
        recorded = await record_states(*args)
        os.kill(os.getpid(), signal.SIGSTOP)
        return recorded

    vars(reaper)["record_states"] = stopping


if __name__ == "__main__":
    step, *arguments = sys.argv[1:]
    if step == STOP_IN_REAPER:
        _arm_reaper()
    else:
        _arm(step)
    sys.argv = ["plane", *arguments]
    from plane.cli.main import main

    main()
