"""The message to people about the exit of a backend."""

from __future__ import annotations

from plane.protocol.backend_state import OUTPUT_MARKER
from plane.runtime.exit_message import exit_message


def test_a_message_has_cause_memory_details_and_output() -> None:
    message = exit_message("exited with code 137", "bye", out_of_memory=True, details=("no space", None, "a hint"))
    assert message == (
        "exited with code 137 after it ran out of memory (resource_limits.memory_limit_bytes) (no space) (a hint)"
        f"{OUTPUT_MARKER}bye"
    )


def test_empty_output_is_mentioned_and_unread_output_is_not() -> None:
    assert exit_message("ended by signal 9", "") == "ended by signal 9, without any output"
    assert exit_message("exited with code 3", None) == "exited with code 3"
