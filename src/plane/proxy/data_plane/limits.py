"""Limits of the proxy that an operator does not set, with reasons. `plane.settings` has the others."""

from __future__ import annotations

from typing import Final

__all__ = [
    "CUT_AFTER_S",
    "HANDSHAKES_LIMIT",
    "HANDSHAKE_LIMIT_S",
    "POOL_LIMIT",
    "TLS_CLOSE_LIMIT_S",
]

# After a backend has ended: its last bytes are still in transit.
CUT_AFTER_S: Final = 0.5
# A TLS handshake holds a file while it lasts.
HANDSHAKE_LIMIT_S: Final = 10.0
# TLS handshakes at the same time, per port. Each takes up to 60 KiB, and a file. More connections wait to be accepted.
HANDSHAKES_LIMIT: Final = 2048
# For the peer's part of the end of a TLS connection.
TLS_CLOSE_LIMIT_S: Final = 2.0
# Free connections kept per backend.
POOL_LIMIT: Final = 64
