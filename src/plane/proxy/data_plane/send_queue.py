"""How many written bytes has the peer not taken yet? This distinguishes a slow reader from one that has stopped.

Read only when a deadline has passed. Bytes in the kernel's buffer count too, so it costs a system call.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from contextlib import suppress

__all__ = ["unsent_bytes"]


def unsent_bytes(transport: asyncio.Transport | None) -> int:
    """Return the bytes in our buffer and in the kernel's that the peer has not acknowledged; 0 for no transport."""
    if transport is None:
        return 0
    in_kernel = array.array("i", [0])
    peer = transport.get_extra_info("socket")
    if peer is not None:
        # A socket that is being closed has no queue any more.
        with suppress(OSError, ValueError):
            # TIOCOUTQ is another name of SIOCOUTQ (tcp(7)).
            fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, in_kernel)
    return transport.get_write_buffer_size() + in_kernel[0]
