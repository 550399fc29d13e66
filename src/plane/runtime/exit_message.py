"""The message to people about the exit of a backend, the same for every runtime."""

from __future__ import annotations

from collections.abc import Iterable

from plane.protocol.backend_state import OUTPUT_MARKER

__all__ = ["exit_message"]


def exit_message(
    cause: str, output: str | None, *, out_of_memory: bool = False, details: Iterable[str | None] = ()
) -> str:
    """Return the message for an exit that was not clean.

    Args:
        cause: how it ended, such as "exited with code 1".
        output: the end of the backend's output; None: this runtime does not read it.
        details: the engine's error, hints and the like, put in parentheses; None entries are skipped.
    """
    message = cause
    if out_of_memory:
        message += " after it ran out of memory (resource_limits.memory_limit_bytes)"
    message += "".join(f" ({detail})" for detail in details if detail)
    if output is None:
        return message
    return f"{message}{OUTPUT_MARKER}{output}" if output else f"{message}, without any output"
