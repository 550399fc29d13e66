"""Delivers one webhook while this controller holds its lease: round after round, reads events, sends them, stores.

What a round sends and what follows is decided in `plane.decisions.webhooks.delivery`. A round is stored as a whole, and
only if its lease's epoch still lasts: after a kill, or when another controller took over, its events are sent again
with the same ids.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass

import structlog

from plane.controller.feed_tail import FeedTail, FeedWake
from plane.controller.webhooks.sender import CONNECTIONS_PER_HOST, WebhookSender, event_message
from plane.database import event_feed, webhooks
from plane.database.event_feed import EventFilter
from plane.database.pool import Database
from plane.database.webhooks import ClaimedWebhook, PendingEvents, WebhookState
from plane.decisions.event_feed import types_matching
from plane.decisions.webhooks.delivery import (
    MAX_PENDING,
    Attempt,
    Outcome,
    Progress,
    Sending,
    due_events,
    is_down,
    plan_sending,
    settle,
)
from plane.protocol.event_feed import FeedEvent
from plane.throttled_log import ThrottledWarning

__all__ = ["DeliveryCounts", "WebhookDelivery"]

# Events of one round: few, since they are sent again if the controller is killed.
PAGE = 100
# A paused or idle webhook is looked at again after this time: its configuration may have changed.
IDLE_INTERVAL_S = 5.0
# How long the cursor stays behind events that are of no wanted type.
STORE_INTERVAL_S = 30.0
GONE = "its receiver responded 410 Gone"
DELETED = "events were deleted, since they are older than --event-retention-days, before they were delivered"

log = structlog.get_logger("plane.controller")


@dataclass(slots=True)
class DeliveryCounts:
    """Attempts of this controller to deliver one webhook, for metrics. ``down``: the receiver is taken to be down."""

    delivered: int = 0
    failed: int = 0
    down: bool = False


@dataclass(frozen=True, slots=True)
class _NewEvents:
    """Events after the cursor. ``missed``: some were deleted before they were looked at."""

    events: list[FeedEvent]
    reached: int
    at_end: bool
    missed: bool = False


class WebhookDelivery:
    """One epoch of one webhook.

    Args:
        lease_ends_at: by the event loop's clock; nothing is sent later. The dispatcher moves it while it renews.
    """

    def __init__(
        self, db: Database, tail: FeedTail, sender: WebhookSender, webhook: ClaimedWebhook, lease_ends_at: float
    ) -> None:
        self._db = db
        self._tail = tail
        self._sender = sender
        self.webhook = webhook
        self.lease_ends_at = lease_ends_at
        self.counts = DeliveryCounts()
        self._clock = asyncio.get_running_loop().time
        # Events up to this id are of no wanted type, although the stored cursor is before it.
        self._looked_at = 0
        self._stored_at = self._clock()
        self._given_up = ThrottledWarning(log, "webhook events given up", webhook=webhook.name)
        self._missed = ThrottledWarning(log, "webhook events deleted before they were delivered", webhook=webhook.name)

    async def run(self) -> None:
        """Deliver until the lease ends, or the webhook is deleted or turned off.

        Raises:
            DatabaseUnavailable
        """
        wake = FeedWake()
        async with self._tail.followed_by(wake):
            while self._clock() < self.lease_ends_at:
                wake.clear()
                state = await webhooks.state(self._db, self.webhook)
                if state is None:
                    return
                if state.retry_in_s > 0:
                    await asyncio.sleep(min(state.retry_in_s, IDLE_INTERVAL_S))
                    continue
                wait_s = await self._round(state)
                if wait_s is None:
                    return
                if wait_s > 0:
                    await wake.wait(min(wait_s, IDLE_INTERVAL_S))

    async def _round(self, state: WebhookState) -> float | None:
        """Send what is due, and store the result. Returns the wait for the next round; None: the epoch has ended."""
        down = is_down(state.failures)
        pending = await webhooks.pending_events(self._db, self.webhook.name)
        due = due_events(pending.events, PAGE, down=down)
        retried = await webhooks.events_to_send(self._db, [each.event_id for each in due]) if due else []
        new = _NewEvents([], state.cursor, at_end=True)
        if len(pending.events) < MAX_PENDING and not (down and retried):
            new = await self._read_new(state, 1 if down else PAGE)
        sending = plan_sending(retried, new.events, pending.events)
        idle = not (sending.queues or sending.waiting or pending.deleted or new.missed)
        if idle and self._clock() - self._stored_at < STORE_INTERVAL_S:
            self._looked_at = new.reached
            soonest_s = min((each.due_in_s for each in pending.events), default=IDLE_INTERVAL_S)
            return max(soonest_s, 0.05) if new.at_end else 0.0
        attempts = await self._send(state, sending)
        events = [*(event for queue in sending.queues for event in queue), *sending.waiting]
        ages_s = {event.id: event.time.seconds_until(state.now) for event in events}
        chance = random.random()  # noqa: S311 - spreads load, guards nothing
        progress = settle(sending, attempts, pending.events, ages_s, state.failures, chance)
        if not await self._store(state, new, progress, pending):
            return None
        return None if progress.gone else 0.0

    async def _read_new(self, state: WebhookState, limit: int) -> _NewEvents:
        types = frozenset(each for pattern in state.types for each in types_matching(pattern))
        window = await event_feed.feed_window(self._db)
        start = max(state.cursor, min(self._looked_at, window.horizon), window.pruned)
        missed = max(state.cursor, self._looked_at) < window.pruned
        found = await event_feed.read_after(self._db, start, max(window.horizon, start), EventFilter(types), limit)
        return _NewEvents(found.events, found.reached, found.at_end, missed)

    async def _send(self, state: WebhookState, sending: Sending) -> dict[int, Attempt]:
        """Send several subjects at once, the events of each in order, until the receiver seems to be down."""
        queues = deque(sending.queues)
        attempts: dict[int, Attempt] = {}
        failures = state.failures

        def stops() -> bool:
            return (is_down(failures) and failures > state.failures) or self._clock() >= self.lease_ends_at

        async def send_queues() -> None:
            nonlocal failures
            while queues:
                for event in queues.popleft():
                    if stops():
                        return
                    attempt = attempts[event.id] = await self._sender.send(state.target, *event_message(event))
                    if attempt.outcome is Outcome.DELIVERED:
                        failures = 0
                        self.counts.delivered += 1
                    else:
                        failures += 1
                        self.counts.failed += 1
                    if attempt.outcome is Outcome.GONE:
                        queues.clear()
                    if attempt.outcome is not Outcome.DELIVERED:
                        break

        await asyncio.gather(*(send_queues() for _ in range(min(CONNECTIONS_PER_HOST, len(queues)))))
        return attempts

    async def _store(self, state: WebhookState, new: _NewEvents, progress: Progress, pending: PendingEvents) -> bool:
        if new.missed or pending.deleted:
            progress.error = DELETED
            self._missed.warn(last_cursor=state.cursor, pending_events=len(pending.deleted))
        stored = await webhooks.store_progress(
            self._db,
            self.webhook,
            state.cursor,
            max(new.reached, state.cursor),
            progress,
            pending.deleted,
            GONE if progress.gone else None,
        )
        if not stored:
            return False
        self._stored_at = self._clock()
        self._log(state, progress)
        return True

    def _log(self, state: WebhookState, progress: Progress) -> None:
        self.counts.down = is_down(progress.failures)
        if progress.gone:
            log.warning("webhook turned off", webhook=self.webhook.name, reason=GONE)
        elif is_down(progress.failures) and not is_down(state.failures):
            log.warning("webhook receiver is down; retrying", webhook=self.webhook.name, error=progress.error)
        if progress.given_up:
            self._given_up.warn(events=len(progress.given_up), error=progress.error)
