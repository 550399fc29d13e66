"""Where does a chunked body end, and which of its trailers are passed on? Follows the chunks without copying them.

RFC 9112, section 7.1, strictly: CR LF only, hexadecimal sizes, bounded extensions and trailers. Trailers that only this
proxy may send are dropped, and those that would frame a message are refused. Used for requests and responses.
"""

from __future__ import annotations

import re
from typing import Final

from plane.decisions.http.grammar import TOKEN, has_only_allowed_bytes
from plane.decisions.http.limits import DEFAULT_LIMITS, HttpLimits
from plane.decisions.http.protected_fields import is_protected
from plane.protocol.errors import PlaneError

__all__ = ["ChunkDecoder", "ChunkScanner", "MalformedChunks"]

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?\Z")
_TRAILER: Final = re.compile(TOKEN + rb":[^\r\n]*\Z")
# RFC 9110, section 6.5.1.
_FRAMING: Final = re.compile(rb"(?i:(?:content-length|transfer-encoding|host):)")


class MalformedChunks(PlaneError):
    """The bytes are not a chunked body that may be passed on."""


class ChunkScanner:
    """Takes a body in pieces. Returns which part of each piece belongs to the body, and what is passed on."""

    __slots__ = ("_in_trailers", "_limits", "_line", "_skip", "_trailers_bytes", "done")

    def __init__(self, limits: HttpLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        # Bytes of the current chunk, its line end included, that are to come.
        self._skip = 0
        # The beginning of a line whose end has not come yet.
        self._line = b""
        self._in_trailers = False
        self._trailers_bytes = 0
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Return what to pass on, and how many bytes of ``data`` belong to the body. `done`: the body is complete.

        A trailer is passed on when it is complete; all else at once, and unchanged.

        Raises:
            MalformedChunks
        """
        position, end = 0, len(data)
        while position < end and not self._in_trailers:
            if self._skip:
                position = self._pass_chunk(data, position)
                continue
            line, position = self._read_line(data, position)
            if line is not None:
                self._take_size(line)
        if not self._in_trailers:
            return data, end
        kept, as_it_is = [data[:position]], not self._line
        while position < end and not self.done:
            line, position = self._read_line(data, position)
            if line is not None and self._take_trailer(line):
                kept.append(line + b"\r\n")
            else:
                as_it_is = False
        if as_it_is:
            # The usual case: nothing is copied.
            return data if position == end else data[:position], position
        return b"".join(kept), position

    def _read_line(self, data: bytes, position: int) -> tuple[bytes | None, int]:
        """Return the line that ends in ``data``, without its end, or None, and the position after it."""
        line_end = data.find(b"\n", position)
        line = self._line + (data[position:] if line_end < 0 else data[position:line_end])
        if len(line) > self._limits.chunk_line_bytes:
            raise MalformedChunks("line too long")
        if line_end < 0:
            self._line = line
            return None, len(data)
        self._line = b""
        if not line.endswith(b"\r"):
            raise MalformedChunks("line not ended by CR LF")
        return line[:-1], line_end + 1

    def _pass_chunk(self, data: bytes, position: int) -> int:
        """Skip chunk data, and check the CR LF after it. Return the position after what was skipped."""
        end = min(position + self._skip, len(data))
        # The last two bytes to skip are the line end. Check those that are in this piece.
        line_end_at = position + self._skip - 2
        if end > line_end_at:
            expected = b"\r\n"[max(0, position - line_end_at) : end - line_end_at]
            if data[max(position, line_end_at) : end] != expected:
                raise MalformedChunks("chunk not ended by CR LF")
        self._skip -= end - position
        return end

    def _take_size(self, line: bytes) -> None:
        size = _SIZE_LINE.match(line)
        if size is None or not has_only_allowed_bytes(line):
            raise MalformedChunks("malformed chunk size")
        length = int(size[1], 16)
        if length:
            self._skip = length + 2
        else:
            self._in_trailers = True

    def _take_trailer(self, line: bytes) -> bool:
        """Return whether a trailer is passed on. The empty line ends the body."""
        if not line:
            self.done = True
            return True
        self._trailers_bytes += len(line)
        if self._trailers_bytes > self._limits.trailers_bytes:
            raise MalformedChunks("trailers too long")
        if not _TRAILER.match(line) or not has_only_allowed_bytes(line) or _FRAMING.match(line):
            raise MalformedChunks("malformed or forbidden trailer")
        return not is_protected(line)


class ChunkDecoder(ChunkScanner):
    """The same for a recipient without support for chunks: passes on only their data, without framing and trailers."""

    __slots__ = ("_data",)

    def __init__(self, limits: HttpLimits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Return what to pass on, and how many bytes of ``data`` belong to the body, as `ChunkScanner.feed` does."""
        _, taken = super().feed(data)
        decoded = b"".join(self._data)
        self._data.clear()
        return decoded, taken

    def _pass_chunk(self, data: bytes, position: int) -> int:
        # The last two bytes to skip are the line end.
        self._data.append(data[position : min(position + self._skip - 2, len(data))] if self._skip > 2 else b"")
        return super()._pass_chunk(data, position)
