"""Guarantee 2: each acquisition of a key has a larger fencing token than all earlier ones."""

from __future__ import annotations

from faults.checker.violation import Violation
from faults.history import History, Life

__all__ = ["check"]


def check(history: History) -> list[Violation]:
    """Return each process whose token is not larger than that of an earlier process of its key."""
    violations = []
    largest: dict[str, Life] = {}
    for life in history.lives:
        before = largest.get(life.key)
        # A drone that does not know whether it has started a process ends it and starts it again: no new acquisition.
        is_same = before is not None and life.backend == before.backend
        if before is not None and not is_same and life.token <= before.token:
            text = f"{life.backend} of key {life.key} has token {life.token} after {before.backend} had {before.token}"
            violations.append(Violation(2, text, (before, life), life.key))
        if before is None or life.token > before.token:
            largest[life.key] = life
    return violations
