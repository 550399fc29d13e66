"""Is the end of a backend a failure? Counted by the console (`decisions.console.activity`) and by drones' metrics."""

from __future__ import annotations

from plane.protocol.backend_state import Terminated, TerminationReason

__all__ = ["is_failure"]

# A swept backend was idle, and `external` was an order.
_FAILURES = frozenset(
    {
        TerminationReason.KEY_EXPIRED,
        TerminationReason.LOST,
        TerminationReason.STARTUP_TIMEOUT,
        TerminationReason.INTERNAL_ERROR,
    }
)


def is_failure(state: Terminated) -> bool:
    """Return whether a backend ended although nobody requested it.

    A process that ends by itself with another code than 0 has failed, too; one that was ordered to end may have any.
    """
    if state.reason is not None:
        return state.reason in _FAILURES
    return state.termination is None and state.exit_code not in (None, 0)
