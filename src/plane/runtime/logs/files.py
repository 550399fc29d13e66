"""Store a backend's output as lines with times, in two files of which the older one is replaced.

Each line is ``time_ns text``. Times rise strictly, so that the lines after a time are found by bisection. Used by
`collector`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from plane.protocol import codec
from plane.protocol.logs import MAX_PAGE_BYTES, LogLine
from plane.runtime.logs.output_capture import LINE_LIMIT_BYTES

__all__ = ["LogFiles", "page_of"]

# Replaces control characters, except tab and escape (colours).
_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), 127) if chr(code) not in "\t\x1b"}


class LogFiles:
    """The output of one backend in ``folder``, at most ``limit_bytes`` of it."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._newer = folder / "log"
        self._older = folder / "log.1"
        self._half = limit_bytes // 2
        self._last_ns = self._last_stored_ns()
        # A crash or a full disk may have cut the last line; the next line must not be appended to it.
        self._may_be_cut = True

    def append(self, lines: Iterable[bytes], times_ns: Iterable[int] | None = None) -> None:
        """Store lines of output (without line ends), with the times ``times_ns`` or else the current time.

        Raises:
            OSError: the disk is full or fails.
        """
        given = iter(times_ns or ())
        stored = []
        for line in lines:
            for start in range(0, max(1, len(line)), LINE_LIMIT_BYTES):
                self._last_ns = max(self._last_ns + 1, next(given, None) or time.time_ns())
                text = line[start : start + LINE_LIMIT_BYTES].decode(errors="replace").rstrip("\r").translate(_CONTROL)
                stored.append(f"{self._last_ns} {text}\n".encode())
        cut = self._may_be_cut and not _end_of(self._newer, 1).endswith(b"\n")
        # Until this write is known to be complete.
        self._may_be_cut = True
        with self._newer.open("ab") as file:
            file.write((b"\n" if cut else b"") + b"".join(stored))
            size = file.tell()
        self._may_be_cut = False
        if size > self._half:
            self._newer.replace(self._older)

    def read(self, after_ns: int | None, tail: int | None) -> list[LogLine]:
        """Return the lines after a time, else the last ``tail`` ones, else all; as many as a page holds."""
        if after_ns is None:
            after_ns = 0 if tail is None else self._time_before_last(tail)
        lines: list[LogLine] = []
        for path in (self._older, self._newer):
            # If the older file is not read to its end, its lines fill the page: no line between the two is skipped.
            lines += _lines_after(path, after_ns)
        return page_of(lines)

    def last_text(self, limit_bytes: int) -> str:
        """Return the end of the output, for a message."""
        text = ""
        for path in (self._older, self._newer):
            rows = _end_of(path, 2 * limit_bytes).decode(errors="replace").splitlines()
            text += "".join(row.partition(" ")[2] + "\n" for row in rows)
        shown = text.encode()[-limit_bytes:].decode(errors="replace")
        return (shown.split("\n", 1)[1] if len(shown) < len(text) and "\n" in shown else shown).strip()

    def _last_stored_ns(self) -> int:
        for path in (self._newer, self._older):
            # A full disk or a crash may have cut a line; the one before it is complete.
            for row in reversed(_end_of(path, 4 * LINE_LIMIT_BYTES).split(b"\n")[1:]):
                if time_ns := _time_of(row):
                    return time_ns
        return 0

    def _time_before_last(self, tail: int) -> int:
        """Return the time of the line before the last ``tail`` ones; 0 if there is none."""
        if tail <= 0:
            return self._last_ns
        rows: list[bytes] = []
        for path in (self._newer, self._older):
            rows = [row for row in _end_of(path, self._half + LINE_LIMIT_BYTES).split(b"\n") if row] + rows
            if len(rows) > tail:
                return _time_of(rows[-tail - 1])
        return 0


def page_of(lines: Iterable[LogLine]) -> list[LogLine]:
    """Return as many of the lines as fit into one response, and at least one, which is shortened if necessary."""
    page: list[LogLine] = []
    size = 0
    for line in lines:
        length = len(codec.encode(line)) + 1
        if not page and length > MAX_PAGE_BYTES:
            # JSON escapes take up to six bytes for one.
            return [LogLine(line.time_ns, line.text[: MAX_PAGE_BYTES // 7] + "…")]
        size += length
        if size > MAX_PAGE_BYTES:
            break
        page.append(line)
    return page


def _time_of(row: bytes) -> int:
    """Return the time of a stored line; 0 for a line that was cut."""
    time_ns, space, _ = row.partition(b" ")
    return int(time_ns) if space and time_ns.isdigit() else 0


def _end_of(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit_bytes))
            # A leading line end shows the caller that the first line is complete.
            return (b"\n" if size <= limit_bytes else b"") + file.read()
    except FileNotFoundError:
        return b""


def _lines_after(path: Path, after_ns: int) -> list[LogLine]:
    """Return the lines of one file after a time, enough to fill a page."""
    try:
        with path.open("rb") as file:
            low, high = 0, file.seek(0, os.SEEK_END)
            # Invariant: the first line that begins at or after `high` is later. Bisect to within a few lines.
            while high - low > LINE_LIMIT_BYTES:
                middle = (low + high) // 2
                file.seek(middle)
                file.readline()
                row = file.readline()
                if row and _time_of(row) <= after_ns:
                    low = middle
                else:
                    high = middle
            file.seek(low)
            if low:
                file.readline()
            rows = file.read(4 * LINE_LIMIT_BYTES + MAX_PAGE_BYTES + LINE_LIMIT_BYTES).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [
        LogLine(time_ns, row.partition(b" ")[2].decode(errors="replace"))
        for row in rows
        if (time_ns := _time_of(row)) > after_ns
    ]
