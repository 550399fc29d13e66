"""The two parts of the event feed, and their filters."""

from __future__ import annotations

import pytest

from plane.decisions.console.event_query import Feed, parse_kind, parse_text, types_of
from plane.protocol.errors import ApiFailure
from plane.protocol.event_feed import EventType


def test_each_type_is_in_one_part_of_the_feed() -> None:
    assert types_of("", Feed.EVENTS) | types_of("", Feed.AUDIT) == set(EventType)
    assert not types_of("", Feed.EVENTS) & types_of("", Feed.AUDIT)
    assert all(each.is_admin for each in types_of("", Feed.AUDIT))


def test_a_type_of_the_other_part_is_refused() -> None:
    assert types_of(parse_kind("drone.lost", Feed.EVENTS), Feed.EVENTS) == {EventType.DRONE_LOST}
    for text, feed in (("admin.drain", Feed.EVENTS), ("drone.lost", Feed.AUDIT), ("x", Feed.EVENTS)):
        with pytest.raises(ApiFailure, match="query parameter kind: must be one of"):
            parse_kind(text, feed)


def test_a_key_is_printable_and_bounded() -> None:
    assert parse_text("a <b> ü") == "a <b> ü"
    for text in ("a\0", "a\n", "x" * 257):
        with pytest.raises(ApiFailure, match="query parameter key"):
            parse_text(text)
