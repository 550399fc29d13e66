"""Watches the database's clock and timeline every second, since all leases depend on that clock.

`plane.decisions.database.clock` and `plane.decisions.database.failover` decide. Every controller watches; of several
that detect the same step, one shifts the stored times.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import structlog

from plane.controller.connect_statements import ConnectStatements
from plane.controller.nodes.node_registry import NodeRegistry
from plane.database import clock
from plane.database.clock import ClockRow
from plane.database.event_bus import EventBus
from plane.database.pool import Database, DatabaseUnavailable
from plane.decisions.database.clock import ClockAction, DatabaseClock
from plane.decisions.database.failover import DatabaseState, may_lack_commits, no_grants_for
from plane.timing import CLOCK_POLL_INTERVAL_S

__all__ = ["DatabaseWatch"]

# One controller's confirmation serves all.
CONFIRMATION_INTERVAL_S = 0.9
# Events that must have survived a failover: more than a useful asynchronous standby lags behind.
COMPARED_EVENTS = 2_000

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = structlog.get_logger("plane.controller")


class DatabaseWatch:
    """One controller's watch over its database's clock and timeline."""

    def __init__(self, db: Database, bus: EventBus, connect: ConnectStatements, nodes: NodeRegistry) -> None:
        self._db = db
        self._bus = bus
        self._connect = connect
        self._nodes = nodes
        self._boot_id = _boot_id()
        self._clock = DatabaseClock(self._boot_id)
        # As last seen by this controller; None: not seen yet.
        self._state: DatabaseState | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                row = await clock.read(self._db, steady_clock)
                await self._watch_timeline(row)
                await self._watch_clock(row)
            except DatabaseUnavailable as error:
                log.info("database clock not read; retrying", error=str(error))
            await asyncio.sleep(CLOCK_POLL_INTERVAL_S)

    async def _watch_clock(self, row: ClockRow) -> None:
        decision = self._clock.read(row.reading, row.last)
        if decision.action is ClockAction.CONFIRM:
            if row.reading.database_s - row.last.confirmed_s >= CONFIRMATION_INTERVAL_S:
                await clock.confirm(self._db, row, self._boot_id)
        elif decision.action is ClockAction.SHIFT:
            shifted_s = await clock.shift(self._db, row, decision.step_s, measured=decision.measured)
            step_s = round(decision.step_s, 3)
            if shifted_s is None:
                log.info("database clock stepped; another controller shifts the stored times", step_s=step_s)
                return
            self._clock.has_shifted(shifted_s)
            if decision.measured:
                log.warning("database clock stepped; stored times shifted", step_s=step_s)
            else:
                log.info("database clock was not watched for a while; leases extended", by_s=step_s)

    async def _watch_timeline(self, row: ClockRow) -> None:
        state = DatabaseState(row.timeline, row.written)
        before = self._state or DatabaseState(row.known_timeline, None)
        if may_lack_commits(before, state) or row.timeline != row.known_timeline:
            missing = None
            if self._state is not None:
                received, stored = self._bus.recent(COMPARED_EVENTS), self._connect.recent_spawns()
                missing = await clock.missing_events(self._db, received, stored)
            wait_s = no_grants_for(missing, before.timeline, row.timeline)
            await clock.record_failover(self._db, row.timeline, wait_s)
            log.warning(
                "database restarted or failed over; no new keys are granted for a while",
                timeline=row.timeline,
                before=before.timeline,
                missing="unknown" if missing is None else missing,
                for_s=wait_s,
            )
            if missing:
                # Heartbeats of a connection that the database does not know are ignored, and acknowledged states may
                # be lost. Drones that connect again report the states of their backends.
                self._nodes.reconnect_all()
        self._state = state


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


# CLOCK_BOOTTIME also advances while the machine is suspended.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_clock() -> float:
    """Return the seconds of a clock that is never set."""
    return time.clock_gettime(_STEADY)
