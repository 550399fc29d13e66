"""The database's clock and timeline. The SQL is in ``clock.sql``; `plane.decisions.database.clock` decides."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plane.database.pool import Database
from plane.database.statements import statements
from plane.decisions.database.clock import ClockReading, LastConfirmation
from plane.timing import KEY_LEASE_S

__all__ = ["ClockRow", "accept_restart", "confirm", "missing_events", "read", "record_failover", "shift"]

# A backend that was scheduled this recently may have been scheduled after the step.
NEW_FOR_S = 10.0

_SQL = statements("clock")


@dataclass(frozen=True, slots=True)
class ClockRow:
    """A reading of the database's clock and timeline.

    ``known_timeline``: the one on which keys are granted. A timeline is its number, a space, and the start time of the
    server; ``written``: bytes of the server's write-ahead log. Both are None if the server does not report them.
    """

    reading: ClockReading
    last: LastConfirmation
    shifted_ms: int
    known_timeline: str | None
    timeline: str | None
    written: int | None


async def read(db: Database, steady_clock: Callable[[], float]) -> ClockRow:
    """Read the database's clock together with ``steady_clock``.

    Raises:
        DatabaseUnavailable
    """
    # The transaction gets its connection before the first reading: waiting for one would make the reading worthless.
    async with db.transaction() as transaction:
        before_s = steady_clock()
        (row,) = await transaction.fetch(_SQL["read_clock"])
        after_s = steady_clock()
    shifted_ms: int = row["shifted_ms"]
    steady_ms: int | None = row["steady_ms"]
    return ClockRow(
        reading=ClockReading(before_s, after_s, row["database_s"], shifted_ms / 1000),
        last=LastConfirmation(row["confirmed_s"], row["boot_id"], None if steady_ms is None else steady_ms / 1000),
        shifted_ms=shifted_ms,
        known_timeline=row["known_timeline"],
        timeline=row["timeline"],
        written=row["written"],
    )


async def confirm(db: Database, row: ClockRow, boot_id: str) -> None:
    """Store that the clock was running correctly when it was read."""
    reading = row.reading
    await db.execute(
        _SQL["confirm_clock"], reading.database_s, boot_id or None, int(reading.before_s * 1000), row.shifted_ms
    )


async def shift(db: Database, row: ClockRow, step_s: float, *, measured: bool) -> float | None:
    """Shift the stored times by a step of the clock.

    Returns the total shift in seconds from now on; None if another controller has shifted them. ``measured`` false: the
    step may be time in which no controller watched the clock, during which lifetimes continued.
    """
    step_ms = round(step_s * 1000)
    async with db.transaction() as transaction:
        if not await transaction.fetch(_SQL["begin_shift"], row.shifted_ms, step_ms, row.reading.database_s):
            return None
        await transaction.fetch(_SQL["lock_for_shift"])
        await transaction.fetch(_SQL["shift_times"], step_ms / 1000, KEY_LEASE_S)
        if measured:
            await transaction.fetch(_SQL["shift_lifetimes"], step_ms / 1000, NEW_FOR_S)
    return (row.shifted_ms + step_ms) / 1000


async def missing_events(db: Database, received: Sequence[tuple[int, datetime.datetime]], stored: Sequence[str]) -> int:
    """Return how many of the received events and of the stored backends are missing in the database."""
    row = await db.fetchrow(
        _SQL["missing_events"], [event_id for event_id, _ in received], [time for _, time in received], stored
    )
    assert row is not None
    missing: int = row["missing"]
    return missing


async def accept_restart(db: Database) -> None:
    """Grant keys at once after a restart of the server by this program, which alone has access to its files."""
    await db.execute(_SQL["accept_restart"])


async def record_failover(db: Database, timeline: str | None, no_grants_for_s: float) -> None:
    """Store that the server may have lost commits: grant no keys for a while, and extend all leases."""
    await db.execute(_SQL["record_failover"], timeline, no_grants_for_s, KEY_LEASE_S)
