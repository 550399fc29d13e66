"""How long may a tunnel stay as it is? Decides when a tunnel has a deadline, and whether it has expired.

A quiet tunnel with both directions open has no deadline: a WebSocket without messages is in use. Every other tunnel has
one, because nothing else may ever end it:

- A side has ended its direction (half-closed). The other side may never end its own, such as a Node.js server, whose
  upgraded sockets allow half-open connections.
- A side does not read, so the other side is not read either, and its end would not be noticed.
- One side is gone, and the other does not take the bytes that are left for it.

`plane.proxy.data_plane.tunnels` reports events and expired deadlines. Times are in seconds of a monotonic clock.
"""

from __future__ import annotations

import enum

__all__ = ["TunnelDeadline", "TunnelSide"]


class TunnelSide(enum.IntEnum):
    """The two ends of a tunnel."""

    CLIENT = 0
    BACKEND = 1


class TunnelDeadline:
    """The deadline of one tunnel.

    Attributes:
        at: when the tunnel is closed unless bytes are transferred. None: there is no deadline.
    """

    __slots__ = ("_ended", "_full", "_lost", "_timeout_s", "_unsent", "at")

    def __init__(self, timeout_s: float) -> None:
        """``timeout_s``: how long no byte may be transferred while the tunnel has a deadline."""
        self._timeout_s = timeout_s
        self._ended = [False, False]
        self._full = [False, False]
        self._lost = False
        self._unsent = 0
        self.at: float | None = None

    def has_ended(self, side: TunnelSide) -> bool:
        """Return whether ``side`` has ended its direction."""
        return self._ended[side]

    def side_ended(self, side: TunnelSide, now: float) -> bool:
        """``side`` sends no more. Return whether the other side still may."""
        self._ended[side] = True
        self._restart(now)
        return not all(self._ended)

    def side_full(self, side: TunnelSide, now: float) -> None:
        """``side`` does not read what was sent to it, so the other side is not read."""
        self._full[side] = True
        self._restart(now)

    def side_drained(self, side: TunnelSide, now: float) -> None:
        """``side`` has read what was sent to it."""
        self._full[side] = False
        self._restart(now)

    def side_lost(self, now: float) -> None:
        """One side is closed; what is left for the other side is still sent."""
        self._lost = True
        self._restart(now)

    def transferred(self, now: float) -> None:
        """Bytes came from the side that has not ended. Only needed for a half-closed tunnel."""
        self._restart(now)

    def expired(self, unsent_bytes: int, now: float) -> bool:
        """Return whether the tunnel is to be closed; to be called when the deadline has passed.

        ``unsent_bytes``: what both sides together have not taken yet. If it has changed since the last call, a side is
        slow but reads, and the deadline is postponed.
        """
        progressed = unsent_bytes not in (0, self._unsent)
        self._unsent = unsent_bytes
        if progressed:
            self._restart(now)
        return not progressed

    @property
    def reason(self) -> str:
        """Why the tunnel has a deadline, for the log."""
        if self._lost:
            return "one side is gone, and the other does not read"
        if any(self._full):
            return f"the {'client' if self._full[TunnelSide.CLIENT] else 'backend'} does not read"
        return f"only the {'client' if self._ended[TunnelSide.CLIENT] else 'backend'} has ended the connection"

    def _restart(self, now: float) -> None:
        limited = self._lost or any(self._ended) or any(self._full)
        self.at = now + self._timeout_s if limited else None
