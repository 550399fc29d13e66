"""Guarantee 4: acknowledged states are stored, and the states of a backend in their order."""

from __future__ import annotations

from itertools import pairwise

from faults.checker.violation import Violation
from faults.history import History, Operation

__all__ = ["ORDER", "check"]

ORDER = ("scheduled", "loading", "starting", "waiting", "ready", "terminating", "hard-terminating", "terminated")
LOST = "lost"


def check(history: History) -> list[Violation]:
    """Return backends whose stored states are out of order, or lack a state that a drone or a client knows of."""
    return [
        *_out_of_order(history),
        *_lost_before_end(history),
        *_lost_acknowledged(history),
        *_lost_seen(history),
    ]


def _out_of_order(history: History) -> list[Violation]:
    violations = []
    for stored in history.stored.values():
        numbers = [ORDER.index(status) for status, _ in stored.states]
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            states = ", ".join(status for status, _ in stored.states)
            violations.append(Violation(4, f"states of {stored.backend} are out of order: {states}", (stored,)))
    return violations


def _lost_before_end(history: History) -> list[Violation]:
    """Return backends that ended from a status that is not stored: later states were sent before earlier ones."""
    violations = []
    for stored in history.stored.values():
        statuses = [status for status, _ in stored.states]
        # Who does not know a backend, says that it is lost, and not in which status it was.
        if stored.ended_from is None or stored.states[-1][1] == LOST or stored.ended_from in statuses:
            continue
        text = f"{stored.backend} ended from {stored.ended_from}, which is not stored: {', '.join(statuses)}"
        violations.append(Violation(4, text, (stored,)))
    return violations


def _lost_acknowledged(history: History) -> list[Violation]:
    violations = []
    for kept in history.on_drones:
        stored = history.stored.get(kept.backend)
        if kept.unacknowledged or stored is None or stored.status == "terminated":
            continue
        if kept.status not in {status for status, _ in stored.states}:
            text = f"{kept.drone} has no unacknowledged state of {kept.backend} and {kept.status} is not stored"
            violations.append(Violation(4, text, (kept, stored)))
    return violations


def _lost_seen(history: History) -> list[Violation]:
    violations = []
    for operation in history.of_kind("follow"):
        stored = history.stored.get(operation.invoked.detail["backend"])
        seen = operation.answer("statuses") or []
        if stored is None or operation.completed is None:
            continue
        missing = set(seen) - {status for status, _ in stored.states}
        if missing or seen != sorted(seen, key=ORDER.index):
            text = f"a client saw {', '.join(seen)} of {stored.backend}; stored: {_states(operation, history)}"
            violations.append(
                Violation(4, text, (operation.invoked, operation.completed, stored), operation.invoked.key)
            )
    return violations


def _states(operation: Operation, history: History) -> str:
    return ", ".join(status for status, _ in history.stored[operation.invoked.detail["backend"]].states)
