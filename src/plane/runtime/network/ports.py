"""Allocate the ports of backends, so that no two running backends of this machine's drones have the same port.

The lock of port N is the bound abstract Unix socket ``plane-port-N``: such a name has one owner per network namespace,
like a TCP port, whatever the users and folders of the drones are. The backend's supervisor inherits a descriptor of it,
so the kernel frees the name when both the drone and the supervisor have ended, and not before. A bound TCP socket would
not do: a server that does not set SO_REUSEADDR could not listen beside it.

Used by `plane.runtime.process.runtime` and `plane.runtime.docker.runtime`. The order in which ports are tried is in
`plane.decisions.backends.port_selection`.
"""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from plane.decisions.backends.port_selection import PortRange, default_port_range, port_candidates
from plane.runtime.base import BackendFailed
from plane.timing import PORT_QUARANTINE_S

__all__ = ["Ports", "listening_socket", "port_range_of_machine"]

# How many quarantined ports stay locked, so that other drones do not use them either. Each lock takes a descriptor.
LOCKED_QUARANTINE_LIMIT = 1_000
# Connections that wait to be accepted.
BACKLOG = 512

log = structlog.get_logger("plane.runtime")


def port_range_of_machine() -> PortRange:
    """Return the default range of ports for backends on this machine."""
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        first, last = 32_768, 60_999
    return default_port_range(PortRange(first, last))


class Ports:
    """The ports of one drone's backends, in use or quarantined.

    Not thread-safe: all methods are called from the event loop.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, ports: PortRange, clock: Callable[[], float] = time.monotonic) -> None:
        self._range = ports
        self._clock = clock
        # None: the backend's supervisor holds the lock, or the lock could not be taken yet.
        self._in_use: dict[int, socket.socket | None] = {}
        self._quarantined: dict[int, socket.socket | None] = {}
        self._ended_at: dict[int, float] = {}
        # Drones that start at the same time begin at different ports.
        self._last = random.randint(ports.first, ports.last)  # noqa: S311 - spreads load, protects no secret

    def allocate(self) -> tuple[int, int]:
        """Allocate a port that nothing on this machine uses. Return it with the descriptor for the supervisor.

        Raises:
            BackendFailed: all ports are in use.
            OSError: too many open files.
        """
        self.expire()
        for port in port_candidates(self._range, self._last, self._in_use, self._ended_at, self._clock()):
            lock = self._quarantined.pop(port, None) or _lock(port)
            if lock is None:
                continue
            if _is_bound(port):
                lock.close()
                continue
            self._ended_at.pop(port, None)
            self._in_use[port] = lock
            self._last = port
            return port, lock.fileno()
        raise BackendFailed(
            f"no port of {self._range} is free on this machine; terminate backends, or give the drone a larger range "
            "with --backend-ports"
        )

    def adopt(self, port: int) -> None:
        """Mark a port as in use by a backend that a former process of this drone started."""
        quarantined = self._quarantined.pop(port, None)
        self._ended_at.pop(port, None)
        self._in_use[port] = quarantined or _lock_if_possible(port)

    def release(self, port: int, ended_s_ago: float = 0.0) -> None:
        """Quarantine the port of an ended backend."""
        lock = self._in_use.pop(port, None) or self._quarantined.pop(port, None)
        self._ended_at.pop(port, None)
        self._ended_at[port] = self._clock() - ended_s_ago
        self._quarantined[port] = lock or _lock_if_possible(port)
        self.expire()

    def is_in_use(self, port: int) -> bool:
        """Return whether a backend of this drone uses the port."""
        return port in self._in_use

    def expire(self) -> None:
        """Free the ports whose quarantine has passed. Called every few seconds."""
        now = self._clock()
        for port in [port for port, ended in self._ended_at.items() if now - ended >= PORT_QUARANTINE_S]:
            del self._ended_at[port]
            _close(self._quarantined.pop(port, None))
        for port in list(self._quarantined)[: max(0, len(self._quarantined) - LOCKED_QUARANTINE_LIMIT)]:
            _close(self._quarantined.pop(port))
        for port, lock in self._quarantined.items():
            # The last process of a backend may still have held the lock when the port was released.
            if lock is None:
                self._quarantined[port] = _lock_if_possible(port)

    def close(self) -> None:
        """Close the locks of this process. Supervisors keep theirs."""
        for lock in (*self._in_use.values(), *self._quarantined.values()):
            _close(lock)
        self._in_use.clear()
        self._quarantined.clear()


def listening_socket(ip: str | None, port: int) -> int:
    """Return the descriptor of a socket that listens on the port at an address of this machine.

    Args:
        ip: None, or an address that is not this machine's but is forwarded to it: listen at all addresses.

    Raises:
        OSError: the port is in use, or too many open files.
    """
    if ip is not None:
        try:
            return _listener(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip, port)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
    return _listener(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET, "", port)


def _listener(family: socket.AddressFamily, host: str, port: int) -> int:
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host else 0)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        return listener.detach()


def _close(lock: socket.socket | None) -> None:
    if lock is not None:
        lock.close()


def _lock(port: int) -> socket.socket | None:
    """Return the lock of the port; None if another process holds it.

    Raises:
        OSError: too many open files.
    """
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0plane-port-{port}")
    except OSError as error:
        lock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return lock


def _lock_if_possible(port: int) -> socket.socket | None:
    """Like `_lock`, but return None if there are too many open files."""
    try:
        return _lock(port)
    except OSError as error:
        log.warning("port not locked against other drones", port=port, error=str(error))
        return None


def _is_bound(port: int) -> bool:
    """Return whether the port is in use on any of the machine's addresses."""
    try:
        # One bind tests the addresses of both protocols.
        with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
            if probe.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("", port))
    except OSError:
        return True
    return False
