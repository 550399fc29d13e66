"""Guarantee 5: every backend ends, and what is recorded as ended has ended."""

from __future__ import annotations

from faults.checker.violation import Violation
from faults.history import History, Life

__all__ = ["check"]

# A process that reported so recently at the end of the run lives.
ALIVE_WITHIN_S = 1.5
# Hard and soft termination of a process that ends at SIGTERM, and what a busy machine needs.
TERMINATED_WITHIN_S = 2.0 + 1.0
# A fault has effects for so long after its end: nodes reconnect, a lease is renewed.
RECOVERED_AFTER_S = 20.0
# The watchdog kills three seconds after the hard deadline, and a busy machine needs a moment.
KILLED_WITHIN_S = 53.0 + 2.0
# While a drone has one of these, none of its leases is renewed.
WITHOUT_RENEWAL = (
    "program killed",
    "program stopped",
    "host cut off",
    "nothing arrives at host",
    "nothing leaves host",
)


def check(history: History) -> list[Violation]:
    """Return processes that outlive the record of their end or their lease, records without process, and late ends."""
    return [*_at_the_end(history), *_late(history), *_unrenewed(history)]


def _at_the_end(history: History) -> list[Violation]:
    end = history.end
    if end is None:
        return []
    last_of: dict[str, Life] = {}
    for life in history.lives:
        if life.backend not in last_of or life.last > last_of[life.backend].last:
            last_of[life.backend] = life
    alive = {backend for backend, life in last_of.items() if life.last >= end.at - ALIVE_WITHIN_S}
    violations = []
    for backend in alive:
        life = last_of[backend]
        stored = history.stored.get(backend)
        if stored is None or stored.status == "terminated":
            status = "not stored" if stored is None else "recorded as terminated"
            text = f"process of {backend} lives on {life.host} and is {status}"
            violations.append(Violation(5, text, (life, *([stored] if stored else [])), life.key))
    for backend, stored in history.stored.items():
        if stored.status != "terminated" and backend not in alive:
            process = (last_of[backend],) if backend in last_of else ()
            text = f"{backend} is recorded as {stored.status}, and has no process"
            violations.append(Violation(5, text, (*process, stored), process[0].key if process else ""))
    return violations


def _late(history: History) -> list[Violation]:
    violations = []
    for operation in history.of_kind("terminate"):
        if not operation.is_ok or operation.completed is None:
            continue
        at, backend = operation.completed.at, operation.invoked.detail["backend"]
        due = at + TERMINATED_WITHIN_S
        if not history.is_calm(at - RECOVERED_AFTER_S, due, "controller", "drone", "docker", "database"):
            continue
        for life in history.lives:
            if life.backend == backend and life.last > due:
                how = operation.invoked.detail["how"]
                text = f"process of {backend} lived {life.last - at:.1f} s after its {how} termination"
                violations.append(Violation(5, text, (operation.invoked, operation.completed, life), life.key))
    return violations


def _unrenewed(history: History) -> list[Violation]:
    violations = []
    for fault in history.faults:
        began, due = fault.began, fault.began.at + KILLED_WITHIN_S
        if began.kind not in WITHOUT_RENEWAL or (fault.ended is not None and fault.ended < due):
            continue
        for life in history.lives:
            if life.host == began.target and life.at < began.at and life.last > due:
                lived = f"lived {life.last - began.at:.1f} s after the last renewal that it can have had"
                violations.append(Violation(5, f"process of {life.backend} {lived}", (began, life), life.key))
    return violations
