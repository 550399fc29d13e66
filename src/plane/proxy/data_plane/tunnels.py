"""The open tunnels of the proxy, each of which counts as use of its backend.

A tunnel is closed when it stalls, when the proxy stops, or when its route was removed.

`plane.decisions.http.tunnel_timeout` decides which tunnel has a deadline. `sweep` checks only these, and the end of a
backend only its own. So an idle tunnel costs nothing, however many there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from plane.decisions.routing.rewrite import Route
from plane.proxy.data_plane.keepalive_reporter import KeepaliveReporter
from plane.proxy.data_plane.send_queue import unsent_bytes
from plane.proxy.data_plane.tunnel import Tunnel

__all__ = ["Tunnels"]

log = structlog.get_logger("plane.proxy")


class Tunnels:
    """All tunnels. A tunnel keeps its backend alive until one of its sides is closed.

    Args:
        now: a monotonic clock, in seconds.
        timeout_s: how long no byte may be transferred in a tunnel that has a deadline.
    """

    def __init__(self, keepalive: KeepaliveReporter, now: Callable[[], float], timeout_s: float) -> None:
        self._keepalive = keepalive
        self._now = now
        self._timeout_s = timeout_s
        self._by_backend: dict[str, set[Tunnel]] = {}
        self._count = 0
        self._limited: set[Tunnel] = set()

    def __len__(self) -> int:
        return self._count

    def begin(self, client: asyncio.Transport, backend: asyncio.Transport, route: Route) -> Tunnel:
        """Start a tunnel between two transports; the caller reports what has happened to them before."""
        tunnel = Tunnel(client, backend, route, self, self._timeout_s)
        self._by_backend.setdefault(route.backend_id, set()).add(tunnel)
        self._count += 1
        return tunnel

    # From the tunnels.

    def now(self) -> float:
        """Return the time, in seconds of a monotonic clock."""
        return self._now()

    def deadline_changed(self, tunnel: Tunnel) -> None:
        """Have `sweep` check ``tunnel`` if it has a deadline now."""
        if tunnel.deadline.at is None:
            self._limited.discard(tunnel)
        else:
            self._limited.add(tunnel)

    def side_lost(self, tunnel: Tunnel, *, first: bool) -> None:
        """A side of ``tunnel`` is closed. The backend is in use until the first one is."""
        if first:
            self._keepalive.use_ended(tunnel.route.backend_id)
        else:
            backend_id = tunnel.route.backend_id
            self._by_backend[backend_id].remove(tunnel)
            self._count -= 1
            if not self._by_backend[backend_id]:
                del self._by_backend[backend_id]
            self._limited.discard(tunnel)

    # From the service.

    def sweep(self, now: float) -> None:
        """Close the tunnels whose deadline has expired."""
        for tunnel in list(self._limited):
            deadline = tunnel.deadline
            if deadline.at is None or now < deadline.at:
                continue
            if deadline.expired(unsent_bytes(tunnel.client) + unsent_bytes(tunnel.backend), now):
                log.info("tunnel stalled; closed", backend=tunnel.route.backend_id, reason=deadline.reason)
                tunnel.abort()

    def cut(self, backend_id: str, is_cut: Callable[[Route], bool] = lambda _: True) -> int:
        """Close those to a backend, or only those by routes of which ``is_cut`` is true; return how many."""
        found = [tunnel for tunnel in self._by_backend.get(backend_id, ()) if is_cut(tunnel.route)]
        for tunnel in found:
            tunnel.abort()
        return len(found)

    def close(self) -> None:
        """Close all."""
        for backend_id in list(self._by_backend):
            self.cut(backend_id)
