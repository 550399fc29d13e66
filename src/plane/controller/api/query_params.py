"""Reads query parameters, each with an error that names it. Used by the endpoints that have some."""

from __future__ import annotations

import re

from aiohttp import web

from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["bad_parameter", "flag", "number"]

_NUMBER = re.compile(r"[0-9]{1,19}")


def bad_parameter(name: str, reason: str) -> ApiFailure:
    """The refusal of a request whose parameter ``name`` is not what it must be."""
    return ApiFailure(400, ApiErrorKind.OTHER, f"query parameter {name}: {reason}")


def flag(request: web.Request, name: str) -> bool:
    """``true`` or ``false``, which is also what an absent one means.

    Raises:
        ApiFailure
    """
    value = request.query.get(name, "false")
    if value not in ("true", "false"):
        raise bad_parameter(name, "must be true or false")
    return value == "true"


def number(request: web.Request, name: str, least: int, largest: int) -> int | None:
    """A whole number within the limits; None if it is absent.

    Raises:
        ApiFailure
    """
    value = request.query.get(name)
    if value is None:
        return None
    if not (_NUMBER.fullmatch(value) and least <= int(value) <= largest):
        raise bad_parameter(name, f"must be a number from {least} to {largest}")
    return int(value)
