"""Where does the body of a request end?

`plane.decisions.http.exchange` passes the bytes of the client. `request_head` has decided the framing; `chunks` follows
a chunked body.
"""

from __future__ import annotations

from typing import Final

from plane.decisions.http.chunks import ChunkScanner
from plane.decisions.http.limits import DEFAULT_LIMITS, HttpLimits

__all__ = ["NO_BODY", "RequestBody"]


class RequestBody:
    """The body of one request.

    Attributes:
        complete: whether all of it has been taken.
    """

    __slots__ = ("_left", "_scanner", "complete")

    def __init__(self, length: int | None, limits: HttpLimits = DEFAULT_LIMITS) -> None:
        """``length``: in bytes; None for a chunked body."""
        self._left = length or 0
        self._scanner = ChunkScanner(limits) if length is None else None
        self.complete = length == 0

    def take(self, data: bytes) -> tuple[bytes, int]:
        """Return what to pass on, and how many bytes of ``data`` belong to the body.

        Raises:
            MalformedChunks
        """
        if self._scanner is not None:
            passed, taken = self._scanner.feed(data)
            self.complete = self._scanner.done
            return passed, taken
        taken = min(self._left, len(data))
        self._left -= taken
        self.complete = self._left == 0
        return (data if taken == len(data) else data[:taken]), taken


# The body of most requests. It is complete, so `take` is never called.
NO_BODY: Final = RequestBody(0)
