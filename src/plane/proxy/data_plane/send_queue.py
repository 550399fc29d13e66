"""How much of what was written has the other side not taken yet? Tells a slow reader from one that has stopped.

Looked at only when a time limit is over: what is in the kernel's buffers counts, so it costs a system call.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from contextlib import suppress

__all__ = ["unsent_bytes"]


def unsent_bytes(transport: asyncio.Transport | None) -> int:
    """Bytes in our buffer and in the kernel's that the peer has not acknowledged; 0 for no transport."""
    if transport is None:
        return 0
    waiting = array.array("i", [0])
    peer = transport.get_extra_info("socket")
    if peer is not None:
        # One that is just being closed has no queue any more.
        with suppress(OSError, ValueError):
            # SIOCOUTQ, by its other name.
            fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, waiting)
    return transport.get_write_buffer_size() + waiting[0]
