"""A broken guarantee, with the records that show it."""

from __future__ import annotations

from dataclasses import dataclass

from faults.history import FaultBegan, History, Record, StoredBackend, StoredOnDrone

__all__ = ["Violation", "excerpt"]

# Faults that were active so long before the records of a violation are a part of its story: a lease and a bit.
BEFORE_S = 70.0


@dataclass(frozen=True)
class Violation:
    """``guarantee``: its number. ``records``: the fewest that show it."""

    guarantee: int
    text: str
    records: tuple[Record, ...]
    key: str = ""


def excerpt(history: History, violation: Violation) -> list[Record]:
    """Return the records of a violation and the faults before it, in the order of their times."""
    # What was stored at the end has no other time.
    times = [record.at for record in violation.records if not isinstance(record, StoredBackend | StoredOnDrone)]
    first, last = min(times, default=0.0), max(times, default=0.0)
    faults: list[FaultBegan] = [each.began for each in history.faults if each.overlaps(first - BEFORE_S, last)]
    return sorted([*violation.records, *faults], key=lambda record: record.at)
