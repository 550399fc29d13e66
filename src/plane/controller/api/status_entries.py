"""Encodes a backend's state as a server-sent event, once for all readers of `status_stream`."""

from __future__ import annotations

from typing import NamedTuple

import structlog
from aiohttp import web

from plane.database.backends import StateRow
from plane.protocol import codec
from plane.protocol.backend_state import public_entry, state_from_builtins
from plane.protocol.errors import MessageError
from plane.protocol.notifications import Event
from plane.protocol.times import DbTime

__all__ = ["KEEP_ALIVE", "STATUS_ENTRIES", "StatusEntries", "StatusEntry", "status_entry"]

log = structlog.get_logger("plane.controller")


class StatusEntry(NamedTuple):
    """An encoded state: the number of its status, and its event with and without the chunk framing of HTTP/1.1."""

    number: int
    chunk: bytes
    text: bytes


class StatusEntries:
    """Encodes the states of events. The bus passes one event to all its readers in turn, so the last one is cached."""

    def __init__(self) -> None:
        self._event: Event | None = None
        self._entry: StatusEntry | None = None

    def entry(self, event: Event) -> StatusEntry | None:
        """Return the event's entry; None, with a warning, for an unknown state."""
        if event is not self._event:
            self._event, self._entry = event, _entry_of_event(event)
        return self._entry


STATUS_ENTRIES: web.AppKey[StatusEntries] = web.AppKey("status_entries", StatusEntries)


def _entry_of_event(event: Event) -> StatusEntry | None:
    try:
        state = state_from_builtins(event.payload)
    except MessageError as error:
        log.warning("backend state not decoded", backend=event.key, error=str(error))
        return None
    return status_entry(StateRow(state, DbTime(int(event.timestamp.timestamp() * 1000))))


def status_entry(row: StateRow) -> StatusEntry:
    """Return the entry of a stored state."""
    entry = public_entry(row.state, row.time)
    text = b"data: " + codec.encode(entry) + f"\nid: {entry.status}\n\n".encode()
    return _framed(entry.status.number, text)


def _framed(number: int, text: bytes) -> StatusEntry:
    return StatusEntry(number, b"%x\r\n%b\r\n" % (len(text), text), text)


# An empty comment; clients ignore it.
KEEP_ALIVE = _framed(0, b":\n\n")
