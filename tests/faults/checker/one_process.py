"""Guarantee 1: at any moment at most one live process holds a key."""

from __future__ import annotations

from faults.checker.violation import Violation
from faults.history import History, Life

__all__ = ["check"]


def check(history: History) -> list[Violation]:
    """Return each pair of processes of a key of which the later reported before the earlier's last report."""
    violations = []
    longest: dict[str, Life] = {}
    for life in history.lives:
        before = longest.get(life.key)
        if before is not None and life.at <= before.last:
            both_s = min(before.last, life.last) - life.at
            both = f"{before.backend} on {before.host} and {life.backend} on {life.host}"
            text = f"key {life.key} has two processes for {both_s:.2f} s: {both}"
            violations.append(Violation(1, text, (before, life), life.key))
        if before is None or life.last > before.last:
            longest[life.key] = life
    return violations
