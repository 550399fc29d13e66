"""How long and how much the proxy puts up with, with reasons, beside what an operator sets (`plane.settings`)."""

from __future__ import annotations

from typing import Final

__all__ = [
    "CUT_AFTER_S",
    "HANDSHAKES_LIMIT",
    "HANDSHAKE_LIMIT_S",
    "POOL_LIMIT",
    "TLS_CLOSE_LIMIT_S",
]

# After a backend has ended: what it said last is on its way still.
CUT_AFTER_S: Final = 0.5
# A TLS handshake that takes longer than a head may holds a connection for nothing.
HANDSHAKE_LIMIT_S: Final = 10.0
# Handshakes at once, at each port; each takes up to 60 KiB, and a file. More wait to be accepted.
HANDSHAKES_LIMIT: Final = 2048
# For the other side's part of the end of TLS.
TLS_CLOSE_LIMIT_S: Final = 2.0
# Free connections kept per backend.
POOL_LIMIT: Final = 64
