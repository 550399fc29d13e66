"""Send requests to kill containers to Docker engines without waiting for responses: a hanging engine delays nothing.

A request that a stopped engine has not read stays in its socket and is executed first when the engine continues.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

__all__ = ["EngineRequests"]

# After this time without a response, the request is sent again on a new connection.
RESPONSE_TIMEOUT_NS = 10_000_000_000
# Enough for the status line.
HEAD_BYTES = 4096
# "204 No Content": the kill reached a process, so the container was alive.
DONE = 204
# "404": there is no such container. "409": the container does not run.
NOT_RUNNING = (404, 409)


@dataclass(slots=True)
class _Request:
    connection: socket.socket
    sent_at_ns: int
    head: bytes = b""


class EngineRequests:
    """The pending requests, at most one per container."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], _Request] = {}

    def kill(self, engine: str, container: str, now_ns: int, *, remove: bool) -> bool:
        """Send a request to kill a container, unless one is pending.

        Return False if the engine does not run, or has responded that the container does not run. Return True if the
        container ran, or the engine has not responded yet.

        Args:
            remove: whether to remove the container too.
        """
        key = (engine, container)
        pending = self._pending.get(key)
        if pending is not None:
            status = _status(pending)
            if status is None and now_ns - pending.sent_at_ns < RESPONSE_TIMEOUT_NS:
                return True
            del self._pending[key]
            pending.connection.close()
            if status is not None:
                self._send(key, now_ns, remove=remove)
                return status not in NOT_RUNNING and not (remove and status == DONE)
        return self._send(key, now_ns, remove=remove)

    def _send(self, key: tuple[str, str], now_ns: int, *, remove: bool) -> bool:
        """Send a request. Return whether the engine runs."""
        engine, container = key
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        operation = f"DELETE /containers/{container}?force=true" if remove else f"POST /containers/{container}/kill"
        request = f"{operation} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        try:
            connection.connect(engine)
            connection.send(request.encode())
        except BlockingIOError:
            # Its backlog is full: it hangs.
            connection.close()
            return True
        except OSError:
            connection.close()
            return False
        self._pending[key] = _Request(connection, now_ns)
        return True

    def discard(self, engine: str, container: str) -> None:
        """Close the connection of a request whose response no longer matters."""
        pending = self._pending.pop((engine, container), None)
        if pending is not None:
            pending.connection.close()


def _status(request: _Request) -> int | None:
    """Return the status of the response; None if there is none yet; 0 if the connection was closed without one."""
    with contextlib.suppress(BlockingIOError):
        try:
            data = request.connection.recv(HEAD_BYTES)
        except ConnectionError:
            return 0
        if not data:
            return 0
        request.head += data
    fields = request.head.split(b" ", 2)
    return int(fields[1]) if len(fields) == 3 and fields[1].isdigit() else None
