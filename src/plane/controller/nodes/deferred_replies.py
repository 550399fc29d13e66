"""Replies to a node's messages that are sent after the messages are stored, while further messages are received.

Used by `nodes.drone` and `nodes.proxy`. The number of outstanding replies is bounded: a node that exceeds it is not
read until some have been sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from plane.database.pool import DatabaseUnavailable, RowLocked, Unstorable
from plane.transport.node_socket import NodeSocket

__all__ = ["DeferredReplies", "no_reply"]

# Messages of one node that may wait for the database.
MAX_OUTSTANDING = 1_000
# Longer than any statement may take, and another one before it.
STORE_TIMEOUT_S = 15.0

T = TypeVar("T")

log = structlog.get_logger("plane.controller")


def no_reply(_: object) -> None:
    """Send nothing, for messages that are only stored, and that the next of their kind replaces."""


class DeferredReplies:
    """The outstanding replies of one connection. `run` must be running."""

    def __init__(self, socket: NodeSocket[Any, Any]) -> None:
        self._socket = socket
        self._slots = asyncio.Semaphore(MAX_OUTSTANDING)
        # Bounded by the number of slots.
        self._stored: asyncio.Queue[tuple[asyncio.Future[Any], Callable[[Any], Any]]] = asyncio.Queue()

    async def expect(self, stored: asyncio.Future[T], reply: Callable[[T], Any]) -> None:
        """Send the message that ``reply`` makes of the result of ``stored``; None: send nothing.

        Raises:
            DatabaseUnavailable: an earlier message was not stored in time.
        """
        if self._slots.locked():
            await self._wait_for_slot()
        await self._slots.acquire()
        stored.add_done_callback(lambda done: self._stored.put_nowait((done, reply)))

    async def _wait_for_slot(self) -> None:
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("messages of the node were not stored in time") from None
        self._slots.release()

    async def run(self) -> None:
        """Send replies until cancelled.

        Raises:
            DatabaseUnavailable: the connection must be closed, so that the node sends its messages again.
            SocketClosed
        """
        while True:
            ready = [await self._stored.get()]
            # Replies to the messages of one batch are sent together.
            while not self._stored.empty():
                ready.append(self._stored.get_nowait())
            messages: list[Any] = []
            try:
                for each in ready:
                    message = self._message(*each)
                    if message is not None:
                        messages.append(message)
            finally:
                # Also if one was not stored, which ends the connection: the results of others are valid.
                if messages:
                    await self._socket.send_all(messages)

    def _message(self, stored: asyncio.Future[Any], reply: Callable[[Any], Any]) -> Any:
        """Return the message to send now that ``stored`` is done; None: nothing."""
        self._slots.release()
        if stored.cancelled():
            raise DatabaseUnavailable("the controller is stopping")
        try:
            return reply(stored.result())
        except RowLocked:
            if reply is no_reply:
                # The next heartbeat makes up for it. Without a connection the node could not do anything else either.
                return None
            raise
        except Unstorable as error:
            log.warning("message of a node cannot be stored", peer=self._socket.peer.name, error=str(error))
            return None
