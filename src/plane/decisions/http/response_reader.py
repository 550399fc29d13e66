"""Where do the responses of one connection to a backend begin and end? Heads and body bytes out of what it sends.

`plane.decisions.http.exchange` reads with it. There is one for each connection to a backend, because a backend mostly
repeats its heads to the byte.
"""

from __future__ import annotations

from plane.decisions.http.chunks import ChunkDecoder, ChunkScanner
from plane.decisions.http.limits import DEFAULT_LIMITS, HttpLimits
from plane.decisions.http.response_head import (
    UNTIL_CLOSE,
    InvalidResponse,
    ResponseHead,
    could_become_head,
    read_response_head,
)

__all__ = ["ResponseReader"]


class ResponseReader:
    """Reads one response after another: `read_head`, then `begin_body` and `read_body` if it is not complete yet.

    Args:
        shares_origin: the backend has no subdomain; see `shared_origin`.
        limits: the size limit of a head, and those of chunks.

    Attributes:
        last_head: of the last response. It also says for how long the free connection may be used again.
        head_begun: a part of a head has arrived, and its end has not.
        rest: the bytes after the head that `read_head` returned. The exchange empties it when it takes them.
        done: the body is complete.
        clean: no bytes came after the body. Such bytes belong to no response.
    """

    __slots__ = (
        "_buffer",
        "_last_block",
        "_last_to_head_request",
        "_left",
        "_limits",
        "_scanner",
        "_shares_origin",
        "clean",
        "done",
        "head_begun",
        "last_head",
        "rest",
    )

    def __init__(self, *, shares_origin: bool = True, limits: HttpLimits = DEFAULT_LIMITS) -> None:
        self._shares_origin = shares_origin
        self._limits = limits
        self._buffer = b""
        self._last_block: bytes | None = None
        self._last_to_head_request = False
        self._left = UNTIL_CLOSE
        self._scanner: ChunkScanner | None = None
        self.last_head: ResponseHead | None = None
        self.head_begun = False
        self.rest = b""
        self.done = False
        self.clean = True

    def read_head(self, data: bytes, *, to_head_request: bool = False) -> ResponseHead | None:
        """Return the head, of an interim response too, that ``data`` completes. None if its end has not come.

        Raises:
            InvalidResponse: what came is not the beginning of a response.
        """
        if self.head_begun:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._check_part(data)
            self._buffer = data
            self.head_begun = bool(data)
            return None
        self.head_begun = False
        self.rest = data[end + 4 :]
        block = data[:end]
        if block == self._last_block and to_head_request is self._last_to_head_request:
            return self.last_head
        self.last_head = read_response_head(block, to_head_request=to_head_request, shares_origin=self._shares_origin)
        self._last_block = block
        self._last_to_head_request = to_head_request
        return self.last_head

    def _check_part(self, part: bytes) -> None:
        if len(part) > self._limits.response_head_bytes:
            raise InvalidResponse("response head too large")
        if not could_become_head(part):
            raise InvalidResponse("malformed head")

    def begin_body(self, head: ResponseHead, *, decodes_chunks: bool = False) -> None:
        """Expect the body of the response whose head is ``head``.

        ``decodes_chunks``: return only the data of a chunked body, without its framing.
        """
        self.done = False
        if head.length is None:
            self._scanner = (ChunkDecoder if decodes_chunks else ChunkScanner)(self._limits)
        else:
            self._scanner = None
            self._left = head.length

    def read_body(self, data: bytes) -> bytes:
        """Return what of ``data`` the client gets, and set `done` and `clean`.

        Raises:
            MalformedChunks
        """
        if self._scanner is not None:
            passed, taken = self._scanner.feed(data)
            self.done = self._scanner.done
            self.clean = taken == len(data)
            return passed
        left = self._left
        if left == UNTIL_CLOSE:
            return data
        length = len(data)
        if length < left:
            self._left = left - length
            return data
        self.done = True
        self.clean = length == left
        return data if length == left else data[:left]
