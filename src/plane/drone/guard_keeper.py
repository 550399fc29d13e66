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

# Before one that has ended is started again; longer each time, until one has lived for as long as the longest wait.
RESTART_FIRST_S = 1.0
RESTART_FACTOR = 2.0
RESTART_CAP_S = 60.0
STDERR = 2

log = structlog.get_logger("plane.drone")


async def keep_guard(db: Path) -> None:
    """Have a guard for the state store at ``db``, until cancelled; from then on it acts, if no drone does."""
    # The guard has one end, and this process the other, for as long as it lives. Nothing is ever sent.
    guards_end, our_end = os.pipe()
    loop, wait_s = asyncio.get_running_loop(), RESTART_FIRST_S
    command = [sys.executable, "-P", "-m", "plane.drone.guard", str(db.resolve()), str(guards_end)]
    try:
        while True:
            began_at = loop.time()
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
            if loop.time() - began_at > RESTART_CAP_S:
                wait_s = RESTART_FIRST_S
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * RESTART_FACTOR, RESTART_CAP_S)
    finally:
        os.close(guards_end)
        os.close(our_end)


def dismiss_guard(db: Path) -> None:
    """Have a guard that a former process of this drone has left go: what it guards is in other hands."""
    place_of(db.resolve()).unlink(missing_ok=True)
