"""Answers to a node's messages that are sent once what was said is stored, while more is read meanwhile.

Used by `nodes.drone` and `nodes.proxy`. How many may be owed at once is bounded: a node that says more is not read
until some are answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from plane.database.pool import DatabaseUnavailable, Unstorable
from plane.transport.node_socket import NodeSocket

__all__ = ["Replies", "no_reply"]

# Messages of one node that may be under way to the database.
OWED_LIMIT = 1_000
# Longer than any statement may take, with one before it.
WRITTEN_LIMIT_S = 15.0

T = TypeVar("T")

log = structlog.get_logger("plane.controller")


def no_reply(_: object) -> None:
    """For messages that are only stored."""


class Replies:
    """What one connection still has to answer. `run` must be running."""

    def __init__(self, socket: NodeSocket[Any, Any]) -> None:
        self._socket = socket
        self._slots = asyncio.Semaphore(OWED_LIMIT)
        # As many as there are slots.
        self._stored: asyncio.Queue[tuple[asyncio.Future[Any], Callable[[Any], Any]]] = asyncio.Queue()

    async def expect(self, stored: asyncio.Future[T], reply: Callable[[T], Any]) -> None:
        """Once ``stored`` has a result, send what ``reply`` makes of it; None: nothing.

        Raises:
            DatabaseUnavailable: an earlier message is not stored in time.
        """
        if self._slots.locked():
            await self._until_one_is_answered()
        await self._slots.acquire()
        stored.add_done_callback(lambda done: self._stored.put_nowait((done, reply)))

    async def _until_one_is_answered(self) -> None:
        try:
            async with asyncio.timeout(WRITTEN_LIMIT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("what the node says is not stored in time") from None
        self._slots.release()

    async def run(self) -> None:
        """Send answers until cancelled.

        Raises:
            DatabaseUnavailable: the connection is to be closed, so that the node says it again.
            SocketClosed
        """
        while True:
            owed = [await self._stored.get()]
            # What one batch has stored is answered together.
            while not self._stored.empty():
                owed.append(self._stored.get_nowait())
            messages = [message for each in owed if (message := self._message(*each)) is not None]
            if messages:
                await self._socket.send_all(messages)

    def _message(self, stored: asyncio.Future[Any], reply: Callable[[Any], Any]) -> Any:
        """What to send now that ``stored`` is done; None: nothing."""
        self._slots.release()
        if stored.cancelled():
            raise DatabaseUnavailable("the controller stops")
        try:
            return reply(stored.result())
        except Unstorable as error:
            log.warning("message refused by the database", peer=self._socket.peer.name, error=str(error))
            return None
