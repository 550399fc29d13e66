"""Keeps a guard beside the drone, which ends backends if the drone never comes back; see `guard`.

Owned by `running`. One guard at a time per state store: a new one takes the former's place, and the former goes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import structlog

from plane.drone.guard import place_of
from plane.runtime.supervised import Supervised

__all__ = ["dismiss_guard", "keep_guard"]

# Before one that has ended is started again; it need not be soon, and must not be a flood.
RESTART_S = 1.0
STDERR = 2

log = structlog.get_logger("plane.drone")


async def keep_guard(db: Path) -> None:
    """Have a guard for the state store at ``db``, until cancelled; from then on it acts, if no drone does."""
    # The guard has one end, and this process the other, for as long as it lives. Nothing is ever sent.
    guards_end, our_end = os.pipe()
    command = [sys.executable, "-P", "-m", "plane.drone.guard", str(db.resolve()), str(guards_end)]
    try:
        while True:
            try:
                guard = Supervised.start(command, env=os.environ, output=STDERR, inherited=(guards_end,), cwd="/")
            except OSError as error:
                log.warning("guard not started; trying again", error=str(error))
            else:
                try:
                    status = await guard.wait()
                finally:
                    guard.stop_watching()
                log.warning("guard ended; another is started", status=status)
            await asyncio.sleep(RESTART_S)
    finally:
        os.close(guards_end)
        os.close(our_end)


def dismiss_guard(db: Path) -> None:
    """Have a guard that a former process of this drone has left go: what it guards is in other hands."""
    place_of(db.resolve()).unlink(missing_ok=True)
