"""Reads a stream of server-sent events (WHATWG HTML, section 9.2.6): bytes in, events out. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plane.protocol.errors import PlaneError

__all__ = ["EventStreamReader", "EventTooLarge", "ServerSentEvent"]

# A status is some hundred bytes; its message a few kilobytes of a backend's last words.
EVENT_LIMIT_BYTES = 1024 * 1024


class EventTooLarge(PlaneError):
    """An event does not end."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. ``id`` is the last one given so far in the stream, "" if none was; ``event`` "" for the usual kind."""

    data: str
    id: str
    event: str = ""


class EventStreamReader:
    """Reads one stream. Lines end in CR LF, LF or CR, and may be cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._id = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """Events that ``data`` completes.

        Raises:
            EventTooLarge
        """
        data = self._rest + data
        # A CR at the end may be half of a CR LF.
        held = b"\r" if data.endswith(b"\r") else b""
        data = data.removesuffix(b"\r") if held else data
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = rest + held
        if len(self._rest) + sum(map(len, self._data)) > EVENT_LIMIT_BYTES:
            raise EventTooLarge(f"an event of more than {EVENT_LIMIT_BYTES} bytes")
        for line in lines:
            event = self._line(line.decode(errors="replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            if not self._data:
                self._event = ""
                return None
            event = ServerSentEvent("\n".join(self._data), self._id, self._event)
            self._data, self._event = [], ""
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "event":
                self._event = value
            case _:
                # A comment, `retry`, or a field of the future.
                pass
        return None
