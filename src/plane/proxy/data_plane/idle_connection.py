"""Has the backend closed a free connection already? Asked before a request is sent that cannot be repeated.

The event loop may have the request in hand before it reads that the backend has closed; the kernel knows at once.
"""

from __future__ import annotations

import asyncio
import select

__all__ = ["is_quiet"]


def is_quiet(transport: asyncio.Transport) -> bool:
    """Return whether nothing has come on a free connection: no end, no error, and no bytes. One system call."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        # There is nothing that the event loop does not know.
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLRDHUP)
    return not poll.poll(0)
