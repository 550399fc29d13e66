"""Holds the ports of this machine's backends, so that no two living backends of any drone have the same.

A port N is held by binding the abstract Unix socket ``plane-port-N``: such a name has one owner per network namespace,
as a TCP port has, whatever the users and folders of the drones are. A descriptor of it is inherited by the backend's
supervisor, so that the kernel frees the name when the drone and the supervisor have both ended, and not before.
A bound TCP socket would do this as well, but a server that does not set SO_REUSEADDR could not listen beside it.

Used by `plane.runtime.process.runtime`; `plane.decisions.backends.port_selection` has the order in which ports are
tried.
"""

from __future__ import annotations

import errno
import random
import socket
import time
from pathlib import Path

import structlog

from plane.decisions.backends.port_selection import PortRange, default_port_range, port_candidates
from plane.runtime.base import BackendFailed
from plane.timing import PORT_QUARANTINE_S

__all__ = ["Ports", "listening_socket", "port_range_of_machine"]

# Sockets held for ports that rest, so that other drones of the machine let them rest too. A descriptor each.
HELD_RESTING_LIMIT = 1_000
# Connections that wait to be accepted.
BACKLOG = 512

log = structlog.get_logger("plane.runtime")


def port_range_of_machine() -> PortRange:
    """Return the default range of this machine's backends."""
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        first, last = 32_768, 60_999
    return default_port_range(PortRange(first, last))


class Ports:
    """The ports of one drone's backends, in use or resting."""

    def __init__(self, ports: PortRange) -> None:
        self._range = ports
        # None: the backend's supervisor holds the name, or the name could not be bound yet.
        self._in_use: dict[int, socket.socket | None] = {}
        self._resting: dict[int, socket.socket | None] = {}
        self._ended_at: dict[int, float] = {}
        # Drones that start at the same time begin at different places.
        self._last = random.randint(ports.first, ports.last)  # noqa: S311 - spreads load, hides nothing

    def draw(self) -> tuple[int, int]:
        """Take a port that nothing on this machine uses; returns it, and the descriptor to give to the supervisor.

        Raises:
            BackendFailed: all ports are in use.
            OSError: too many open files.
        """
        self.expire()
        for port in port_candidates(self._range, self._last, self._in_use, self._ended_at, time.monotonic()):
            lock = self._resting.pop(port, None) or _lock(port)
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
            f"no port of {self._range} is free on this machine; end backends, or give the drone a larger range with "
            "--backend-ports"
        )

    def adopt(self, port: int) -> None:
        """Regard a port as in use: a backend of a former process of this drone has it."""
        resting = self._resting.pop(port, None)
        self._ended_at.pop(port, None)
        self._in_use[port] = resting or _lock_if_possible(port)

    def release(self, port: int, ended_s_ago: float = 0.0) -> None:
        """Let a port rest, whose backend has ended."""
        lock = self._in_use.pop(port, None) or self._resting.pop(port, None)
        self._ended_at.pop(port, None)
        self._ended_at[port] = time.monotonic() - ended_s_ago
        self._resting[port] = lock or _lock_if_possible(port)
        self.expire()

    def is_in_use(self, port: int) -> bool:
        """Whether a backend of this drone has the port."""
        return port in self._in_use

    def expire(self) -> None:
        """Free the ports that have rested; to be called every few seconds."""
        now = time.monotonic()
        for port in [port for port, ended in self._ended_at.items() if now - ended >= PORT_QUARANTINE_S]:
            del self._ended_at[port]
            _close(self._resting.pop(port, None))
        for port in list(self._resting)[: max(0, len(self._resting) - HELD_RESTING_LIMIT)]:
            _close(self._resting.pop(port))
        for port, lock in self._resting.items():
            # The last process of a backend may still have been ending when the port was released.
            if lock is None:
                self._resting[port] = _lock_if_possible(port)

    def close(self) -> None:
        """Give up this process's hold; supervisors keep theirs."""
        for lock in (*self._in_use.values(), *self._resting.values()):
            _close(lock)
        self._in_use.clear()
        self._resting.clear()


def listening_socket(ip: str | None, port: int) -> int:
    """Return the descriptor of a socket that listens on the port at an address of this machine.

    Args:
        ip: None, or one that is not this machine's but leads here: at all addresses.

    Raises:
        OSError: the port is taken; there are too many open files.
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
    """Return the socket that holds the port; None if another process holds it.

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
    """As `_lock`; also None if there are too many open files."""
    try:
        return _lock(port)
    except OSError as error:
        log.warning("port not held against other drones", port=port, error=str(error))
        return None


def _is_bound(port: int) -> bool:
    """Whether a server could not listen on the port, on one of the machine's addresses at least."""
    try:
        # One bind tests the addresses of both protocols.
        with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
            if probe.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("", port))
    except OSError:
        return True
    return False
