"""Parses query parameters; errors name the parameter."""

from __future__ import annotations

import re

from aiohttp import web

from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["bad_parameter", "flag", "number"]

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
