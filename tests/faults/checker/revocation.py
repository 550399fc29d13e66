"""Guarantee 6: a revoked token opens nothing after the call has returned, and its connections are closed."""

from __future__ import annotations

from faults.checker.violation import Violation
from faults.history import History, Operation

__all__ = ["check"]

# Connections are closed within a second, and a busy machine needs a moment.
CLOSED_WITHIN_S = 1.0 + 1.0
# A proxy notices after 30 s that it has no controller, and follows the routes that it knows for the length of a lease.
WITHOUT_CONTROLLER_S = 30.0 + 60.0 + 5.0
RECOVERED_AFTER_S = 20.0


def check(history: History) -> list[Violation]:
    """Return requests that a proxy let through with a revoked token, and tunnels that it left open."""
    revoked: dict[str, Operation] = {}
    tokens: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for operation in history.of_kind("connect"):
        if operation.is_ok and operation.completed is not None:
            owner = (operation.answer("backend_id"), operation.invoked.detail["user"])
            tokens.setdefault(owner, []).append((operation.completed.at, operation.answer("token")))
    for operation in history.of_kind("revoke"):
        if operation.is_ok:
            owner = (operation.invoked.detail["backend"], operation.invoked.detail["user"])
            for issued_at, token in tokens.get(owner, ()):
                if issued_at < operation.invoked.at:
                    revoked.setdefault(token, operation)
    return [*_let_through(history, revoked), *_left_open(history, revoked)]


def _let_through(history: History, revoked: dict[str, Operation]) -> list[Violation]:
    violations = []
    for operation in history.of_kind("read") + history.of_kind("tunnel"):
        revocation = revoked.get(operation.invoked.detail["token"])
        if revocation is None or revocation.completed is None or operation.completed is None or not operation.is_ok:
            continue
        late_s = operation.invoked.at - revocation.completed.at
        if late_s > _allowed_s(history, revocation.completed.at, operation.invoked.at, 0.0):
            what = f"{operation.invoked.target} let a {operation.invoked.kind} through"
            text = f"{what} {late_s:.2f} s after its token was revoked"
            records = (revocation.invoked, revocation.completed, operation.invoked, operation.completed)
            violations.append(Violation(6, text, records, operation.invoked.key))
    return violations


def _left_open(history: History, revoked: dict[str, Operation]) -> list[Violation]:
    violations = []
    for operation in history.of_kind("tunnel"):
        revocation = revoked.get(operation.invoked.detail["token"])
        if revocation is None or revocation.completed is None or operation.completed is None or not operation.is_ok:
            continue
        open_s = operation.answer("last") - revocation.completed.at
        if open_s > _allowed_s(history, revocation.completed.at, operation.answer("last"), CLOSED_WITHIN_S):
            text = f"{operation.invoked.target} left a tunnel open for {open_s:.2f} s after its token was revoked"
            records = (revocation.invoked, revocation.completed, operation.invoked, operation.completed)
            violations.append(Violation(6, text, records, operation.invoked.key))
    return violations


def _allowed_s(history: History, revoked_at: float, used_at: float, calm_s: float) -> float:
    """Return how late a use may be: a fault may have kept the proxy from its controller, or that from the database."""
    is_calm = history.is_calm(revoked_at - RECOVERED_AFTER_S, used_at, "controller", "proxy", "database")
    return calm_s if is_calm else WITHOUT_CONTROLLER_S
