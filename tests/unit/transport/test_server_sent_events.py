"""Streams of server-sent events, however they are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.transport.server_sent_events import MAX_EVENT_BYTES, EventStreamReader, EventTooLarge, ServerSentEvent

STREAM = b": hello\n\ndata: one\nid: a\n\ndata:two\r\ndata: more\r\n\r\nevent: end\rdata\rretry: 5\r\rdata: cut"
EVENTS = [ServerSentEvent("one", "a"), ServerSentEvent("two\nmore", "a"), ServerSentEvent("", "a", "end")]


@given(st.lists(st.integers(0, len(STREAM))))
def test_stream_may_be_split_anywhere(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    reader = EventStreamReader()
    found = [event for begin, end in itertools.pairwise(places) for event in reader.feed(STREAM[begin:end])]
    assert found == EVENTS


def test_id_with_nul_is_ignored_and_events_have_data() -> None:
    assert list(EventStreamReader().feed(b"id: x\0y\ndata: d\n\nevent: lost\n\nid: z\n\ndata: e\n\n")) == [
        ServerSentEvent("d", ""),
        ServerSentEvent("e", "z"),
    ]


def test_an_id_without_data_moves_the_position_alone() -> None:
    reader = EventStreamReader()
    assert list(reader.feed(b"id: 7\n\n")) == []
    assert reader.last_id == "7"


def test_endless_event_is_refused() -> None:
    reader = EventStreamReader()
    line = b"data: " + b"x" * 1000 + b"\n"
    for _ in range(MAX_EVENT_BYTES // 1000 + 1):
        list(reader.feed(line))
    with pytest.raises(EventTooLarge):
        list(reader.feed(line))
