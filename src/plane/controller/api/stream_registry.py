"""The endless responses of one controller, which are ended at once when it stops.

Their readers reconnect to another controller and resume; waiting for the responses to end would be futile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["StreamRegistry"]


class StreamRegistry:
    """The handlers of endless responses."""

    def __init__(self) -> None:
        self._handlers: set[asyncio.Task[Any]] = set()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Register the current handler while the block runs.

        Cancelling it closes its connection after the bytes already written are sent.
        """
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        try:
            yield
        finally:
            self._handlers.discard(handler)

    def end_all(self) -> None:
        """Cancel all handlers."""
        for handler in self._handlers:
            handler.cancel()
