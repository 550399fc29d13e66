"""Reads request bodies, bounded in size, in time, and all together in memory. Called by `responses.json_body`."""

from __future__ import annotations

import asyncio

from aiohttp import web

from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["read_body"]

# For a body to arrive; the largest takes a second over a slow line.
BODY_LIMIT_S = 30.0
# Of all bodies that are only half here: thousands of clients that send large ones slowly must not fill the memory. What
# arrives at once, as nearly every body does, does not count.
ALL_BODIES_LIMIT_BYTES = 64 * 1024 * 1024


class _Room:
    """The memory of bodies that are still to come."""

    def __init__(self) -> None:
        self.taken = 0


_room = _Room()


async def read_body(request: web.Request) -> bytes:
    """The whole body.

    Raises:
        ApiFailure: 408 too slow, 400 broken, 503 too many large bodies at once.
        web.HTTPRequestEntityTooLarge
    """
    if request.content.is_eof():
        return await request.read()
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            async for part in request.content.iter_any():
                size += len(part)
                _room.taken += len(part)
                if size > request.client_max_size:
                    raise web.HTTPRequestEntityTooLarge(request.client_max_size, size)
                if _room.taken > ALL_BODIES_LIMIT_BYTES:
                    raise ApiFailure(503, ApiErrorKind.OTHER, "too many large bodies are on their way; try again")
                parts.append(part)
    except TimeoutError:
        raise ApiFailure(408, ApiErrorKind.OTHER, f"the body did not arrive within {BODY_LIMIT_S:.0f} s") from None
    except web.RequestPayloadError as error:
        raise ApiFailure(400, ApiErrorKind.OTHER, f"the body is broken: {error}") from None
    finally:
        _room.taken -= size
    return b"".join(parts)
