"""Has the backend closed a free connection? Checked before a request is sent that cannot be repeated.

The event loop may process the request before it reads the end of the connection. The kernel knows it at once.
"""

from __future__ import annotations

import asyncio
import select

__all__ = ["is_quiet"]


def is_quiet(transport: asyncio.Transport) -> bool:
    """Return whether a free connection has no end, no error and no bytes to read. Costs one system call."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        # The transport has no socket of its own, so the event loop knows all there is.
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLRDHUP)
    return not poll.poll(0)
