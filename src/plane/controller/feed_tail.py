"""Reads new events of the feed once for all of a controller's followers, and passes them on in the feed's order.

The feed is read only while somebody follows it: soon after each new state of a backend, else once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import structlog

from plane.database import event_feed
from plane.database.event_feed import EventFilter, FeedWindow
from plane.database.pool import Database
from plane.protocol.event_feed import FeedEvent
from plane.protocol.notifications import Event
from plane.throttled_log import ThrottledWarning

__all__ = ["FeedFollower", "FeedTail", "FeedWake"]

POLL_INTERVAL_S = 1.0
# Between two reads, so that a busy cluster's events are read in batches.
MIN_SPACING_S = 0.1
PAGE = 1_000
# Far above the timeouts of controllers' own transactions.
STUCK_AFTER_S = 30.0

_ALL = EventFilter()

log = structlog.get_logger("plane.controller")


class FeedFollower:
    """A bounded queue of new events. ``overflowed``: events were dropped, so the follower must read the feed again.

    Args:
        max_queued: events that may wait.
    """

    def __init__(self, max_queued: int) -> None:
        self._queue: asyncio.Queue[FeedEvent] = asyncio.Queue(max_queued)
        self.overflowed = False

    def put(self, events: Sequence[FeedEvent]) -> None:
        """Queue events; called by the tail."""
        for event in events:
            if self._queue.full():
                self.overflowed = True
                return
            self._queue.put_nowait(event)

    def break_off(self) -> None:
        """Mark that events may be missing; called by the tail."""
        self.overflowed = True

    async def next_within(self, timeout_s: float) -> list[FeedEvent]:
        """Return the queued events; wait for the first one. Empty after the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                events = [await self._queue.get()]
        except TimeoutError:
            return []
        while not self._queue.empty():
            events.append(self._queue.get_nowait())
        return events


class FeedWake:
    """Wakes a task when there are new events; the task reads them itself."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def put(self, events: Sequence[FeedEvent]) -> None:
        """Wake the task if there are events; called by the tail."""
        if events:
            self._woken.set()

    def break_off(self) -> None:
        """Wake the task; called by the tail when events may have been missed."""
        self._woken.set()

    def clear(self) -> None:
        """Wait for events from now on."""
        self._woken.clear()

    async def wait(self, timeout_s: float) -> None:
        """Return when there are new events, or after the timeout."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()


class FeedTail:
    """The end of the feed. `run` must be running.

    Args:
        stuck_after_s: a warning is logged when an open transaction has held the feed back for this time.
    """

    def __init__(self, db: Database, *, stuck_after_s: float = STUCK_AFTER_S) -> None:
        self._db = db
        self._stuck_after_s = stuck_after_s
        # The horizon that is held back, and since when.
        self._held: tuple[int, float] | None = None
        self._stuck = ThrottledWarning(log, "event feed is held back by an open transaction")
        self._followers: set[FeedFollower | FeedWake] = set()
        self._wake = asyncio.Event()
        self._followed = asyncio.Event()
        # Events up to this id were passed on; None while nobody follows.
        self._position: int | None = None

    def on_state_event(self, _: Event) -> None:
        """Read soon: a backend's state was stored. Called by the event bus."""
        self._wake.set()

    @asynccontextmanager
    async def followed_by(self, follower: FeedFollower | FeedWake) -> AsyncIterator[None]:
        """Pass new events on while the block runs: all those above any horizon that is read inside the block.

        Raises:
            DatabaseUnavailable
        """
        self._followers.add(follower)
        try:
            if self._position is None:
                horizon = (await event_feed.feed_window(self._db)).horizon
                # Another follower may have set it meanwhile.
                if self._position is None:
                    self._position = horizon
            self._followed.set()
            yield
        finally:
            self._followers.discard(follower)
            if not self._followers:
                self._position = None
                self._followed.clear()

    async def run(self) -> None:
        """Read new events until cancelled.

        Raises:
            DatabaseUnavailable
        """
        while True:
            await self._followed.wait()
            self._wake.clear()
            await self._read()
            await asyncio.sleep(MIN_SPACING_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL_S - MIN_SPACING_S):
                    await self._wake.wait()

    async def _watch(self, window: FeedWindow) -> None:
        """Log which transaction holds the feed back, if one does for long."""
        now = asyncio.get_running_loop().time()
        if window.newest <= window.horizon or self._held is None or self._held[0] != window.horizon:
            self._held = (window.horizon, now) if window.newest > window.horizon else None
        elif now - self._held[1] >= self._stuck_after_s and not self._stuck.is_throttled:
            writer = await event_feed.oldest_writer(self._db)
            if writer is not None:
                self._stuck.warn(pid=writer.pid, program=writer.program, open_s=round(writer.open_s))

    async def _read(self) -> None:
        position = self._position
        window = await event_feed.feed_window(self._db)
        await self._watch(window)
        if position is not None and not window.pruned <= position <= window.horizon:
            # A failover has lost events, or they were deleted before they were read. Followers read the feed again,
            # and learn which.
            for follower in self._followers:
                follower.break_off()
            self._position = window.horizon
            return
        at_end = False
        while position is not None and not at_end:
            events, reached, at_end = await event_feed.read_after(self._db, position, window.horizon, _ALL, PAGE)
            if self._position != position:
                # Everyone has left, and perhaps others came.
                return
            for follower in self._followers:
                follower.put(events)
            self._position = position = reached
