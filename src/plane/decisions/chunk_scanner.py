"""Where does a chunked body end? Follows the chunks' boundaries without touching the bytes.

RFC 9112, section 7.1, strictly: CR LF only, hexadecimal sizes, bounded extensions and trailers. Trailers that
only this proxy may send are refused. Used in both directions.
"""

from __future__ import annotations

import re

from plane.decisions.http_grammar import TOKEN, only_allowed_bytes
from plane.decisions.http_limits import DEFAULT_LIMITS, HttpLimits

__all__ = ["ChunkScanner", "MalformedChunks"]

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?\Z")
_TRAILER = re.compile(TOKEN + rb":[^\r\n]*\Z")
_FORGED = re.compile(rb"(?i:x[-_](?:verified|forwarded)[-_]|content-length|transfer-encoding|host[ \t]*:)")


class MalformedChunks(Exception):
    """Not a chunked body that may be passed on."""


class ChunkScanner:
    """Fed with a body in pieces; says how much of each piece belongs to the body."""

    __slots__ = ("_in_trailers", "_limits", "_line", "_skip", "_trailers_bytes", "done")

    def __init__(self, limits: HttpLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        # Bytes of the current chunk, its line end included, that are still to come.
        self._skip = 0
        # The beginning of a line whose end has not come yet.
        self._line = b""
        self._in_trailers = False
        self._trailers_bytes = 0
        self.done = False

    def feed(self, data: bytes) -> int:
        """How many bytes of ``data`` belong to the body; when that is not all, or `done`, the body is complete.

        Raises:
            MalformedChunks
        """
        position, end = 0, len(data)
        while position < end and not self.done:
            if self._skip:
                position = self._pass_chunk(data, position)
                continue
            line_end = data.find(b"\n", position)
            if line_end < 0:
                self._line += data[position:]
                if len(self._line) > self._limits.chunk_line_bytes:
                    raise MalformedChunks("line too long")
                return end
            line = self._line + data[position:line_end]
            self._line = b""
            position = line_end + 1
            self._take_line(line)
        return position

    def _pass_chunk(self, data: bytes, position: int) -> int:
        """Skip chunk data; the two bytes after it must be CR LF."""
        end = min(position + self._skip, len(data))
        # The last two of the bytes to skip are the line end: check those that are in this piece.
        line_end_at = position + self._skip - 2
        if end > line_end_at:
            expected = b"\r\n"[max(0, position - line_end_at) : end - line_end_at]
            if data[max(position, line_end_at) : end] != expected:
                raise MalformedChunks("chunk not ended by CR LF")
        self._skip -= end - position
        return end

    def _take_line(self, line: bytes) -> None:
        if len(line) > self._limits.chunk_line_bytes or not line.endswith(b"\r"):
            raise MalformedChunks("line too long, or not ended by CR LF")
        line = line[:-1]
        if self._in_trailers:
            self._take_trailer(line)
            return
        size = _SIZE_LINE.match(line)
        if size is None or not only_allowed_bytes(line):
            raise MalformedChunks("malformed chunk size")
        length = int(size[1], 16)
        if length:
            self._skip = length + 2
        else:
            self._in_trailers = True

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        self._trailers_bytes += len(line)
        if self._trailers_bytes > self._limits.trailers_bytes:
            raise MalformedChunks("trailers too long")
        if not _TRAILER.match(line) or not only_allowed_bytes(line) or _FORGED.match(line):
            raise MalformedChunks("malformed or forbidden trailer")
