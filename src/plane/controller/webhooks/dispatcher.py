"""Decides by leases which webhooks this controller delivers, and runs a `WebhookDelivery` for each of them.

A lease is renewed several times before it ends. A controller that was stopped and continues finds its lease expired and
sends nothing more; whatever it stores is refused, since another epoch has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from plane.controller.feed_tail import FeedTail
from plane.controller.webhooks.delivery import DeliveryCounts, WebhookDelivery
from plane.controller.webhooks.sender import WebhookSender, open_sender
from plane.database import webhooks
from plane.database.pool import Database, DatabaseUnavailable
from plane.decisions.http.trusted_proxies import Network
from plane.tasks import OwnedTasks
from plane.throttled_log import ThrottledWarning

__all__ = ["WebhookDispatcher"]

LEASE_S = 10.0
# Renewals and claims. A new webhook, or one whose controller was killed, is delivered after this time at most, or after
# the rest of its lease.
CLAIM_INTERVAL_S = 2.0

log = structlog.get_logger("plane.controller")


class WebhookDispatcher:
    """The webhooks that this controller delivers. `run` must be running.

    Args:
        holder: unique to this process, also if another one has the same controller's name.
        allowed: networks that receivers may have although they are not public.
    """

    def __init__(self, db: Database, tail: FeedTail, holder: str, allowed: Sequence[Network]) -> None:
        self._db = db
        self._tail = tail
        self._holder = holder
        self._allowed = allowed
        self._changed = asyncio.Event()
        self._failed = ThrottledWarning(log, "webhook delivery failed; retrying")
        self._deliveries: dict[str, tuple[WebhookDelivery, asyncio.Task[None]]] = {}

    def counts(self) -> dict[str, DeliveryCounts]:
        """Return the attempts for each webhook that this controller delivers, since it began to."""
        return {name: delivery.counts for name, (delivery, _) in self._deliveries.items()}

    def on_change(self) -> None:
        """Claim soon: a webhook was set on this controller."""
        self._changed.set()

    async def run(self) -> None:
        """Claim and deliver webhooks until cancelled, then let other controllers claim them at once.

        Raises:
            DatabaseUnavailable
        """
        tasks = OwnedTasks(lambda error: self._failed.warn(error=str(error) or type(error).__name__))
        async with open_sender(self._allowed) as sender:
            try:
                while True:
                    self._changed.clear()
                    await self._claim(sender, tasks)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(CLAIM_INTERVAL_S):
                            await self._changed.wait()
            finally:
                await tasks.end()
                self._deliveries.clear()
                with suppress(DatabaseUnavailable):
                    await webhooks.release(self._db, self._holder)

    async def _claim(self, sender: WebhookSender, tasks: OwnedTasks) -> None:
        # The lease begins later in the database than here, so it ends here first.
        lease_ends_at = asyncio.get_running_loop().time() + LEASE_S
        for webhook in await webhooks.claim(self._db, self._holder, LEASE_S):
            delivery, task = self._deliveries.get(webhook.name, (None, None))
            if delivery is not None and task is not None and delivery.webhook == webhook and not task.done():
                delivery.lease_ends_at = lease_ends_at
                continue
            if task is not None:
                task.cancel()
            delivery = WebhookDelivery(self._db, self._tail, sender, webhook, lease_ends_at)
            self._deliveries[webhook.name] = (delivery, tasks.start(delivery.run()))
        for name in [name for name, (_, task) in self._deliveries.items() if task.done()]:
            del self._deliveries[name]
