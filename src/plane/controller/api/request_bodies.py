"""Reads request bodies, with limits on size, time, and the memory of all bodies together."""

from __future__ import annotations

import asyncio

from aiohttp import web

from plane.protocol.errors import ApiErrorKind, ApiFailure

__all__ = ["BODY_READER", "BodyReader"]


class BodyReader:
    """Reads the bodies of one controller's requests.

    Args:
        timeout_s: for one body.
        max_incomplete_bytes: of all incomplete bodies together: thousands of clients that send large ones slowly must
            not fill the memory. A body that arrives at once, like nearly all do, does not count.
    """

    def __init__(self, timeout_s: float, max_incomplete_bytes: int) -> None:
        self._timeout_s = timeout_s
        self._max_incomplete_bytes = max_incomplete_bytes
        self._incomplete_bytes = 0

    async def read(self, request: web.Request) -> bytes:
        """Return the whole body.

        Raises:
            ApiFailure: 408 too slow, 400 broken, 503 too many large bodies at once.
            web.HTTPRequestEntityTooLarge
        """
        if request.content.is_eof():
            return await request.read()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                async for part in request.content.iter_any():
                    size += len(part)
                    self._incomplete_bytes += len(part)
                    if size > request.client_max_size:
                        raise web.HTTPRequestEntityTooLarge(request.client_max_size, size)
                    if self._incomplete_bytes > self._max_incomplete_bytes:
                        raise ApiFailure(503, ApiErrorKind.OTHER, "too many large request bodies in transfer; retry")
                    parts.append(part)
        except TimeoutError:
            raise ApiFailure(
                408, ApiErrorKind.OTHER, f"the body did not arrive within {self._timeout_s:.0f} s"
            ) from None
        except web.RequestPayloadError as error:
            raise ApiFailure(400, ApiErrorKind.OTHER, f"the body is malformed: {error}") from None
        finally:
            self._incomplete_bytes -= size
        return b"".join(parts)


BODY_READER: web.AppKey[BodyReader] = web.AppKey("body_reader", BodyReader)
