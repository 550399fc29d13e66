"""The table of all guarantees, and the function that checks them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from faults.checker import endings, kept_promises, one_process, revocation, rising_tokens, routing, stored_states
from faults.checker.violation import Violation
from faults.history import History

__all__ = ["GUARANTEES", "check"]

GUARANTEES: Final[dict[int, Callable[[History], list[Violation]]]] = {
    1: one_process.check,
    2: rising_tokens.check,
    3: kept_promises.check,
    4: stored_states.check,
    5: endings.check,
    6: revocation.check,
    7: routing.check,
}


def check(history: History) -> list[Violation]:
    """Return all violations of all guarantees."""
    return [violation for check_one in GUARANTEES.values() for violation in check_one(history)]
