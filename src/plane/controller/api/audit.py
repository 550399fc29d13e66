"""Describes a call of the control API for the audit log: who sent it from where, and its arguments without secrets."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from plane.controller.api.auth import CALLER

__all__ = ["described"]

# Of an argument: longer ones are cut, so that a call cannot fill the log.
MAX_TEXT_LENGTH = 500


def described(request: web.Request, **arguments: Any) -> dict[str, Any]:
    """Return the data of the call's event. ``arguments`` must have no secrets."""
    key = request.get(CALLER)
    return {
        "caller": None if key is None else key.name,
        "address": request.remote,
        "arguments": {
            name: value[:MAX_TEXT_LENGTH] if isinstance(value, str) else value for name, value in arguments.items()
        },
    }
