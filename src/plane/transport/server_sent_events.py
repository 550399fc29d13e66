"""Parses a stream of server-sent events (WHATWG HTML, section 9.2.6): bytes in, events out. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plane.protocol.errors import PlaneError

__all__ = ["EventStreamReader", "EventTooLarge", "ServerSentEvent"]

# A status has some hundred bytes, and its message a few kilobytes of a backend's last output.
MAX_EVENT_BYTES = 1024 * 1024


class EventTooLarge(PlaneError):
    """An event exceeds the size limit."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event.

    ``id`` is the last id in the stream so far, "" if there was none; ``event`` is "" for the default type.
    """

    data: str
    id: str
    event: str = ""


class EventStreamReader:
    """Parses one stream. Lines end in CR LF, LF or CR, and may be split anywhere.

    ``last_id``: the last id in the stream so far, also of an event without data, which only moves it.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.last_id = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """Yield the events that ``data`` completes.

        Raises:
            EventTooLarge
        """
        data = self._rest + data
        # A CR at the end may be half of a CR LF.
        held = b"\r" if data.endswith(b"\r") else b""
        data = data.removesuffix(b"\r") if held else data
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = rest + held
        if len(self._rest) + sum(map(len, self._data)) > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event of more than {MAX_EVENT_BYTES} bytes")
        for line in lines:
            event = self._line(line.decode(errors="replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            if not self._data:
                self._event = ""
                return None
            event = ServerSentEvent("\n".join(self._data), self.last_id, self._event)
            self._data, self._event = [], ""
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self.last_id = value
            case "event":
                self._event = value
            case _:
                # A comment, `retry`, or an unknown field.
                pass
        return None
