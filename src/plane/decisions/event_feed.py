"""Decides which events of the feed a caller may read, and from where.

`plane.controller.api.event_feed` and the webhooks use it. Roles and cursors are described in
``docs/how-to/events-and-webhooks.md``.
"""

from __future__ import annotations

from collections.abc import Iterable

from plane.decisions.access import Role
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.event_feed import EventType

__all__ = ["check_cursor", "expand_types", "readable_types", "types_matching"]


def expand_types(patterns: Iterable[str]) -> frozenset[EventType]:
    """Return the types that match one of the patterns: a type, or a prefix with a star, such as ``backend.*``.

    Raises:
        ApiFailure: 400, a pattern matches no type.
    """
    found: set[EventType] = set()
    for pattern in patterns:
        matching = types_matching(pattern)
        if not matching:
            raise ApiFailure(
                400,
                ApiErrorKind.OTHER,
                f"types: {pattern[:80]!r} matches no type of event; the types are {', '.join(EventType)}, "
                "and a star at the end stands for any rest",
            )
        found.update(matching)
    return frozenset(found)


def types_matching(pattern: str) -> list[EventType]:
    """Return the types that match a pattern; none for one that only another version of this program knows."""
    if pattern.endswith("*"):
        return [each for each in EventType if each.startswith(pattern[:-1])]
    return [each for each in EventType if each == pattern]


def readable_types(wanted: frozenset[EventType] | None, role: Role | None) -> frozenset[EventType] | None:
    """Return the wanted types that the caller may read; None for all. ``role`` None: no key is required.

    Calls of the API are shown to administrators only, since they have names and addresses of the callers.

    Raises:
        ApiFailure: 403, only calls are wanted.
    """
    if role is None or role.may(Role.ADMIN):
        return wanted
    readable = frozenset(each for each in wanted or EventType if not each.is_admin)
    if not readable:
        raise ApiFailure(403, ApiErrorKind.OTHER, "events of the types admin.* require an API key with the role admin")
    return readable


def check_cursor(after: int, pruned: int, horizon: int) -> int:
    """Return the id after which to read: ``after``, or for 0 that before the oldest event.

    Args:
        after: the caller's cursor.
        pruned: events up to this id were deleted.
        horizon: events up to this id are complete.

    Raises:
        ApiFailure: 410, events after the cursor were deleted, or the cursor is not of this feed. It has a cursor with
            which the caller can continue.
    """
    if after == 0:
        return pruned
    if after < pruned:
        raise ApiFailure(
            410,
            ApiErrorKind.OTHER,
            f"events after {after} were deleted, since they are older than --event-retention-days; "
            f"the oldest events that exist are those after {pruned}",
            cursor=pruned,
        )
    if after > horizon:
        raise ApiFailure(
            410,
            ApiErrorKind.OTHER,
            f"the feed ends at {horizon}, before the cursor {after}: it is of another database, or the database has "
            f"lost its last events in a failover; read on after {horizon}",
            cursor=horizon,
        )
    return after
