"""Guarantee 7: a request reaches the process of its key, or none."""

from __future__ import annotations

from faults.checker.violation import Violation
from faults.history import History

__all__ = ["check"]


def check(history: History) -> list[Violation]:
    """Return requests and tunnels that were answered by the process of another key."""
    violations = []
    for operation in history.of_kind("read") + history.of_kind("tunnel"):
        if operation.completed is None or not operation.is_ok:
            continue
        wanted = operation.invoked.key
        answered = operation.answer("keys") if operation.invoked.kind == "tunnel" else [operation.answer("key")]
        foreign = [key for key in answered if key != wanted]
        if foreign:
            what = f"{operation.invoked.target} forwarded a {operation.invoked.kind} for key {wanted}"
            text = f"{what} to the process of {foreign[0]}"
            violations.append(Violation(7, text, (operation.invoked, operation.completed), wanted))
    return violations
