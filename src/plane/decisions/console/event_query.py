"""Which events a page of the console lists. Called by `plane.controller.console.events`."""

from __future__ import annotations

import enum

from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.event_feed import EventType

__all__ = ["Feed", "parse_kind", "parse_text", "types_of"]

MAX_TEXT = 256


class Feed(enum.StrEnum):
    """The two parts of the event feed: what happened, and who changed what."""

    EVENTS = "events"
    AUDIT = "audit"


def types_of(kind: str, feed: Feed) -> frozenset[EventType]:
    """Return the types of events that a page lists; ``kind`` "": all of its part of the feed."""
    return frozenset(each for each in EventType if each.is_admin is (feed is Feed.AUDIT) and kind in ("", each.value))


def parse_kind(text: str, feed: Feed) -> str:
    """Return the type of event that a query parameter names; "": all.

    Raises:
        ApiFailure: 400.
    """
    if not types_of(text, feed):
        raise ApiFailure(400, ApiErrorKind.OTHER, f"query parameter kind: must be one of {_listed(feed)}")
    return text


def parse_text(text: str) -> str:
    """Return the name of a key.

    Raises:
        ApiFailure: 400.
    """
    if len(text) > MAX_TEXT or not text.isprintable():
        raise ApiFailure(400, ApiErrorKind.OTHER, f"query parameter key: at most {MAX_TEXT} printable characters")
    return text


def _listed(feed: Feed) -> str:
    return ", ".join(sorted(types_of("", feed)))
