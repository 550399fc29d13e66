"""Bytes both ways, after a 101: each side's `data_received` is the other side's `write`.

No Python frame per message while both directions are open. Backpressure: a side that cannot write stops the other's
reading.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from plane.decisions.http.tunnel_timeout import TunnelDeadline, TunnelSide
from plane.decisions.routing.rewrite import Route

__all__ = ["Tunnel", "TunnelOwner"]


class TunnelOwner(Protocol):
    """What a tunnel reports to; implemented by `tunnels.Tunnels`."""

    def now(self) -> float:
        """Return the time, in seconds of a monotonic clock."""

    def deadline_changed(self, tunnel: Tunnel, /) -> None:
        """The tunnel has a deadline now, or has none any more."""

    def side_lost(self, tunnel: Tunnel, /, *, first: bool) -> None:
        """A side of the tunnel is closed. ``first``: the other one is open."""


class _Protocol(asyncio.Protocol):
    """The protocol of one side."""

    __slots__ = ("_side", "_tunnel", "data_received")

    def __init__(self, tunnel: Tunnel, side: TunnelSide, peer: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self._side = side
        # An attribute of the instance, so that the event loop calls the peer's transport itself.
        self.data_received = peer.write  # type: ignore[method-assign]

    def pause_writing(self) -> None:
        self._tunnel.side_full(self._side)

    def resume_writing(self) -> None:
        self._tunnel.side_drained(self._side)

    def eof_received(self) -> bool:
        return self._tunnel.side_ended(self._side)

    def connection_lost(self, error: Exception | None) -> None:
        self._tunnel.side_lost(self._side)


class Tunnel:
    """One tunnel, until both of its sides are closed.

    Attributes:
        client, backend: the transports of its sides.
        route: where it leads.
        deadline: when it is closed; `tunnels` checks it.
    """

    __slots__ = ("_lost", "_owner", "backend", "client", "deadline", "route")

    def __init__(
        self, client: asyncio.Transport, backend: asyncio.Transport, route: Route, owner: TunnelOwner, timeout_s: float
    ) -> None:
        self.client = client
        self.backend = backend
        self.route = route
        self.deadline = TunnelDeadline(timeout_s)
        self._owner = owner
        self._lost = False
        client.set_protocol(_Protocol(self, TunnelSide.CLIENT, backend))
        backend.set_protocol(_Protocol(self, TunnelSide.BACKEND, client))

    def _transport(self, side: TunnelSide) -> asyncio.Transport:
        return self.client if side is TunnelSide.CLIENT else self.backend

    def _peer(self, side: TunnelSide) -> asyncio.Transport:
        return self.backend if side is TunnelSide.CLIENT else self.client

    # From the protocols of its sides, and for events before the tunnel began.

    def side_full(self, side: TunnelSide) -> None:
        """``side`` cannot be written to: do not read the other side."""
        self._peer(side).pause_reading()
        self.deadline.side_full(side, self._owner.now())
        self._owner.deadline_changed(self)

    def side_drained(self, side: TunnelSide) -> None:
        """``side`` can be written to again."""
        peer = TunnelSide.BACKEND if side is TunnelSide.CLIENT else TunnelSide.CLIENT
        if not self.deadline.has_ended(peer):
            # The event loop would report the end of one that has ended a second time.
            self._transport(peer).resume_reading()
        self.deadline.side_drained(side, self._owner.now())
        self._owner.deadline_changed(self)

    def side_ended(self, side: TunnelSide) -> bool:
        """``side`` sends no more: pass that on, and keep the other direction open. Return whether it is kept."""
        peer = self._peer(side)
        still_open = self.deadline.side_ended(side, self._owner.now())
        self._owner.deadline_changed(self)
        if not still_open or not peer.can_write_eof():
            return False
        peer.write_eof()
        # From here on each message from the other side postpones the deadline.
        protocol = peer.get_protocol()
        assert isinstance(protocol, _Protocol)
        transport = self._transport(side)

        def forward(data: bytes) -> None:
            self.deadline.transferred(self._owner.now())
            transport.write(data)

        protocol.data_received = forward  # type: ignore[method-assign]
        # The event loop keeps the method that it found when the protocol was set.
        peer.set_protocol(protocol)
        return True

    def side_lost(self, side: TunnelSide) -> None:
        """``side`` is closed: close the other one when it has taken what was written to it."""
        first, self._lost = not self._lost, True
        if first:
            self._peer(side).close()
            self.deadline.side_lost(self._owner.now())
            self._owner.deadline_changed(self)
        self._owner.side_lost(self, first=first)

    # From `tunnels`.

    def abort(self) -> None:
        """Close both sides now."""
        self.client.abort()
        self.backend.abort()
