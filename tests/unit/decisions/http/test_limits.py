"""The sizes of the parts of a message fit each other."""

from __future__ import annotations

from plane.decisions.http.exchange import PENDING_LIMIT_BYTES
from plane.decisions.http.limits import DEFAULT_LIMITS
from plane.decisions.http.request_head import KNOWN_LIMIT_BYTES


def test_a_part_is_not_larger_than_the_whole() -> None:
    assert DEFAULT_LIMITS.target_bytes < DEFAULT_LIMITS.head_bytes
    assert DEFAULT_LIMITS.chunk_line_bytes <= DEFAULT_LIMITS.trailers_bytes
    assert DEFAULT_LIMITS.head_bytes > KNOWN_LIMIT_BYTES


def test_a_pipelined_head_of_the_largest_size_is_read_before_reading_pauses() -> None:
    assert DEFAULT_LIMITS.head_bytes <= PENDING_LIMIT_BYTES
