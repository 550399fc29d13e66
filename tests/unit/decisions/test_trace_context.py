"""`traceparent`: what is a parent, and what the backend of a proxy gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.trace_context import TraceContext, parse_traceparent, replace_traceparent, traceparent_field

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"
OURS = f"00-{TRACE}-00f067aa0ba902b7-01"


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_is_read(trace_id: int, span_id: int, sampled: bool) -> None:
    context = TraceContext(trace_id, span_id, sampled)
    assert parse_traceparent(str(context)) == context


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (VALID, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        # Other flags are ignored, and a later version may have more parts (W3C Trace Context, section 4).
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes", True),
    ],
)
def test_valid_parents(text: str, sampled: bool) -> None:
    assert parse_traceparent(text) == TraceContext(int(TRACE, 16), int(SPAN, 16), sampled)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0",
        f"00-{TRACE}-{SPAN}",
        f" {VALID}",
        f"{VALID}\n",
        f"{VALID},{VALID}",
        f"00-{TRACE}-{SPAN}-0\N{ARABIC-INDIC DIGIT ONE}",
    ],
)
def test_malformed_parents_are_ignored(text: str | None) -> None:
    assert parse_traceparent(text) is None


@given(st.text())
def test_any_text_is_a_parent_or_none(text: str) -> None:
    assert parse_traceparent(text) is None


def test_only_a_single_field_is_a_parent() -> None:
    assert traceparent_field(b"\r\nAccept: */*") is None
    assert traceparent_field(f"\r\nA: b\r\nTraceParent:  {VALID} \r\nC: d".encode()) == VALID
    assert traceparent_field(f"\r\ntraceparent: {VALID}\r\nTRACEPARENT: {OURS}".encode()) is None
    assert traceparent_field(f"\r\nx-traceparent: {VALID}".encode()) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("\r\nA: b", "\r\nA: b"),
        (f"\r\nTraceparent: {VALID}\r\nA: b\r\ntracestate: v=1", "\r\nA: b\r\ntracestate: v=1"),
        # The state of a trace that is not continued.
        ("\r\ntraceparent: nonsense\r\nTraceState: v=1\r\nA: b", "\r\nA: b"),
        (f"\r\ntraceparent: {VALID}\r\ntracestate: v=1\r\ntraceparent: {VALID}", ""),
        ("\r\ntracestate: v=1", ""),
        (f"\r\nx-traceparent: {VALID}\r\nxtracestate: v", f"\r\nx-traceparent: {VALID}\r\nxtracestate: v"),
    ],
)
def test_the_backend_gets_one_parent(lines: str, expected: str) -> None:
    assert replace_traceparent(lines.encode(), OURS) == f"{expected}\r\ntraceparent: {OURS}".encode()
