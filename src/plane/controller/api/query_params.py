"""Parses query parameters; errors name the parameter."""

from __future__ import annotations

import re

from aiohttp import web

from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["MAX_ID", "bad_parameter", "flag", "number", "stream_position"]

# Ids of events are stored as 64-bit integers.
MAX_ID = 2**63 - 1

_NUMBER = re.compile(r"[0-9]{1,19}")


def bad_parameter(name: str, reason: str) -> ApiFailure:
    """Return the failure for an invalid value of the parameter ``name``."""
    return ApiFailure(400, ApiErrorKind.OTHER, f"query parameter {name}: {reason}")


def flag(request: web.Request, name: str) -> bool:
    """Return a boolean parameter, which must be ``true`` or ``false``; false if it is absent.

    Raises:
        ApiFailure
    """
    value = request.query.get(name, "false")
    if value not in ("true", "false"):
        raise bad_parameter(name, "must be true or false")
    return value == "true"


def number(request: web.Request, name: str, least: int, largest: int) -> int | None:
    """Return an integer parameter within the limits; None if it is absent.

    Raises:
        ApiFailure
    """
    value = request.query.get(name)
    if value is None:
        return None
    if not (_NUMBER.fullmatch(value) and least <= int(value) <= largest):
        raise bad_parameter(name, f"must be a number from {least} to {largest}")
    return int(value)


def stream_position(request: web.Request) -> int | None:
    """Return the id of the event after which a stream begins; None if the client names none.

    It is in ``Last-Event-ID``, or else in the parameter ``after``: browsers that reconnect repeat the parameter. A
    header that is not the id of an event is ignored.

    Raises:
        ApiFailure: the parameter is invalid.
    """
    after = number(request, "after", 0, MAX_ID)
    last = request.headers.get("Last-Event-ID", "")
    return int(last) if _NUMBER.fullmatch(last) and int(last) <= MAX_ID else after
