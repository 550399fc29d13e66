"""How long and how much the proxy puts up with, with reasons, beside what an operator sets (`plane.settings`)."""

from __future__ import annotations

from typing import Final

__all__ = [
    "CLOSING_LIMIT_S",
    "CUT_AFTER_S",
    "FIRST_REQUEST_LIMIT_S",
    "HALF_CLOSED_LIMIT_S",
    "HANDSHAKES_LIMIT",
    "HANDSHAKE_LIMIT_S",
    "LINGER_LIMIT_S",
    "PENDING_LIMIT_BYTES",
    "POOL_LIMIT",
    "TLS_CLOSE_LIMIT_S",
    "WAITING_PAGE_AFTER_S",
]

# Bytes of later requests that may wait while one is served.
PENDING_LIMIT_BYTES: Final = 64 * 1024
# A client that has sent its end still gets an answer that is coming. Mostly it is gone, which nothing tells but a
# write: so no longer than this without a byte for it, lest a quiet stream keeps its backend in use for ever.
HALF_CLOSED_LIMIT_S: Final = 2.0
# For a client to take what was written to it before the connection closed.
CLOSING_LIMIT_S: Final = 60.0
# After a backend has ended: what it said last is on its way still.
CUT_AFTER_S: Final = 0.5
# For the first request of a client that connected just before the proxy stopped, or was taken over from.
FIRST_REQUEST_LIMIT_S: Final = 1.0
# For a client that still sends to notice that it has its answer.
LINGER_LIMIT_S: Final = 2.0
# A TLS handshake that takes longer than a head may holds a connection for nothing.
HANDSHAKE_LIMIT_S: Final = 10.0
# Handshakes at once, at each port; each takes up to 60 KiB, and a file. More wait to be accepted.
HANDSHAKES_LIMIT: Final = 2048
# For the other side's part of the end of TLS.
TLS_CLOSE_LIMIT_S: Final = 2.0
# A backend that starts within this shows no waiting page before.
WAITING_PAGE_AFTER_S: Final = 1.0
# Free connections kept per backend.
POOL_LIMIT: Final = 64
