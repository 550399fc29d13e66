"""Guarantee 3: a backend that a connect request was promised becomes ready, or terminated with a reason."""

from __future__ import annotations

from faults.checker.violation import Violation
from faults.history import History, Record

__all__ = ["check"]


def check(history: History) -> list[Violation]:
    """Return each response with ``spawned: true`` whose backend is not stored, or did not become anything."""
    if history.end is None:
        return []
    violations = []
    for operation in history.of_kind("connect"):
        if not operation.is_ok or not operation.answer("spawned"):
            continue
        assert operation.completed is not None
        backend = operation.answer("backend_id")
        stored = history.stored.get(backend)
        if stored is None:
            problem = "is not stored"
        elif any(status == "ready" for status, _ in stored.states):
            continue
        elif stored.status != "terminated":
            problem = f"is still {stored.status} at the end"
        elif not any(reason for _, reason in stored.states):
            problem = "ended without a reason"
        else:
            continue
        records: tuple[Record, ...] = (operation.invoked, operation.completed)
        if stored is not None:
            records = (*records, stored)
        violations.append(Violation(3, f"promised backend {backend} {problem}", records, operation.invoked.key))
    return violations
