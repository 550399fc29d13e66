"""Has the kernel detect a peer that is gone without closing: asleep, out of reach, or without power.

Otherwise its tunnel or stream would stay open and keep its backend in use: for a quarter of an hour while bytes are
unacknowledged, and without limit while nothing is sent. Set on listening sockets, from which connections inherit it,
and on connections to backends.
"""

from __future__ import annotations

import socket
from typing import Final

__all__ = ["notice_lost_peer"]

# Keepalive probes of an idle connection: the kernel closes it after two minutes without a response.
PROBE_AFTER_S: Final = 60
PROBE_INTERVAL_S: Final = 20
PROBES: Final = 3


def notice_lost_peer(connection: socket.socket, lost_after_s: float) -> None:
    """Have the kernel end ``connection`` when its peer neither acknowledges nor reads for ``lost_after_s``.

    TCP_USER_TIMEOUT (tcp(7), RFC 5482) limits both unacknowledged bytes and bytes that a peer with a full buffer does
    not take. On Linux it also replaces the number of keepalive probes.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_AFTER_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_INTERVAL_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(lost_after_s * 1000))
