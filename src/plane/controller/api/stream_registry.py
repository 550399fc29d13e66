"""The answers of one controller that have no end of their own. When it stops, they are ended at once.

Whoever reads one comes back, to another controller, and goes on where it was; to wait for it would be in vain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["OpenStreams"]


class OpenStreams:
    """The handlers of endless answers."""

    def __init__(self) -> None:
        self._handlers: set[asyncio.Task[Any]] = set()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The handler that runs the block may be cancelled, which cuts its connection once what was written is sent."""
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        try:
            yield
        finally:
            self._handlers.discard(handler)

    def end_all(self) -> None:
        """Cut all."""
        for handler in self._handlers:
            handler.cancel()
