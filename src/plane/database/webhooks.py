"""Webhooks: their configuration, which controller delivers them, and the progress of deliveries.

The SQL is in ``webhooks.sql``. `plane.decisions.webhooks` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg

from plane.database.event_feed import feed_event
from plane.database.pool import Database, Transaction
from plane.database.statements import statements
from plane.decisions.webhooks.delivery import PendingEvent, Progress
from plane.protocol.event_feed import FeedEvent
from plane.protocol.times import DbTime
from plane.protocol.webhooks import WebhookInfo

__all__ = [
    "MAX_WEBHOOKS",
    "ClaimedWebhook",
    "PendingEvents",
    "WebhookState",
    "WebhookTarget",
    "claim",
    "delete",
    "events_to_send",
    "list_webhooks",
    "pending_events",
    "release",
    "set_webhook",
    "state",
    "store_progress",
    "target",
]

MAX_WEBHOOKS = 100
# The events that `WebhookInfo.behind` looks at.
MAX_COUNTED = 10_000

_SQL = statements("webhooks")


class ClaimedWebhook(NamedTuple):
    """A webhook that this controller delivers. Its progress is stored only in this epoch."""

    name: str
    epoch: int


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """Where messages are sent, and the secret that signs them."""

    url: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WebhookState:
    """What a round of deliveries needs. ``retry_in_s`` > 0: the receiver is down, and nothing is due before."""

    target: WebhookTarget
    types: list[str]
    cursor: int
    failures: int
    retry_in_s: float
    now: DbTime


class PendingEvents(NamedTuple):
    """Events that wait for a retry, and the ids of those that the feed does not have any more."""

    events: list[PendingEvent]
    deleted: list[int]


async def set_webhook(
    db: Transaction, name: str, url: str, types: Sequence[str], secret: str, *, rotate: bool
) -> bool | None:
    """Store a webhook. Returns whether it is new; None if there are too many. A known one keeps its secret."""
    rows = await db.fetch(_SQL["set_webhook"], name, url, types, secret, rotate, MAX_WEBHOOKS)
    return rows[0]["created"] if rows else None


async def delete(db: Transaction, name: str) -> bool:
    """Delete a webhook. False if there is none of this name."""
    return bool(await db.fetch(_SQL["delete_webhook"], name))


async def list_webhooks(db: Database | Transaction, name: str | None = None) -> list[WebhookInfo]:
    """Return all webhooks, or the one of this name, without their secrets."""
    return [_info(row) for row in await db.fetch(_SQL["list_webhooks"], name, MAX_COUNTED)]


def _info(row: asyncpg.Record) -> WebhookInfo:
    def time(column: str) -> DbTime | None:
        return None if row[column] is None else DbTime(row[column])

    return WebhookInfo(
        name=row["name"],
        url=row["url"],
        types=row["types"],
        enabled=row["disabled_reason"] is None,
        disabled_reason=row["disabled_reason"],
        created_at=DbTime(row["created_at"]),
        cursor=row["cursor"],
        behind=row["behind"],
        pending=row["pending"],
        delivered=row["delivered"],
        abandoned=row["abandoned"],
        failures=row["failures"],
        retry_at=time("retry_at"),
        last_delivery_at=time("last_delivery_at"),
        last_error=row["last_error"],
        last_error_at=time("last_error_at"),
    )


async def target(db: Transaction, name: str) -> WebhookTarget | None:
    """Return where a webhook sends to; None if there is none of this name."""
    rows = await db.fetch(_SQL["webhook_target"], name)
    return WebhookTarget(rows[0]["url"], rows[0]["secret"]) if rows else None


async def claim(db: Database, holder: str, lease_s: float) -> list[ClaimedWebhook]:
    """Claim the webhooks that nobody else delivers, and renew the leases of those that ``holder`` has."""
    rows = await db.fetch(_SQL["claim_webhooks"], holder, lease_s)
    return [ClaimedWebhook(row["name"], row["epoch"]) for row in rows]


async def release(db: Database, holder: str) -> None:
    """Let other controllers claim the webhooks of ``holder`` at once."""
    await db.fetch(_SQL["release_webhooks"], holder)


async def state(db: Database, webhook: ClaimedWebhook) -> WebhookState | None:
    """Return what a round needs; None if this controller does not deliver the webhook any more."""
    rows = await db.fetch(_SQL["webhook_state"], webhook.name, webhook.epoch)
    if not rows:
        return None
    row = rows[0]
    return WebhookState(
        WebhookTarget(row["url"], row["secret"]),
        row["types"],
        row["cursor"],
        row["failures"],
        row["retry_in_s"] or 0.0,
        DbTime(row["now"]),
    )


async def pending_events(db: Database, name: str) -> PendingEvents:
    """Return a webhook's pending events. They are bounded: see `plane.decisions.webhooks.delivery.MAX_PENDING`."""
    rows = await db.fetch(_SQL["pending_events"], name)
    return PendingEvents(
        [
            PendingEvent(row["event_id"], row["subject"], row["attempts"], row["due_in_s"])
            for row in rows
            if not row["deleted"]
        ],
        [row["event_id"] for row in rows if row["deleted"]],
    )


async def events_to_send(db: Database, ids: Sequence[int]) -> list[FeedEvent]:
    """Return events by their ids, oldest first."""
    return [feed_event(row) for row in await db.fetch(_SQL["events_to_send"], ids)]


async def store_progress(
    db: Database,
    webhook: ClaimedWebhook,
    before: int,
    after: int,
    progress: Progress,
    deleted: Sequence[int],
    disabled_reason: str | None,
) -> bool:
    """Store a round that moved the cursor from ``before`` to ``after``.

    ``deleted``: pending events that the feed does not have any more. Returns false, and stores nothing, if
    another epoch of the webhook has begun.
    """
    done = [*progress.delivered, *progress.given_up, *deleted]
    async with db.transaction() as transaction:
        stored = await transaction.fetch(
            _SQL["store_progress"],
            webhook.name,
            webhook.epoch,
            before,
            after,
            len(progress.delivered),
            len(progress.given_up) + len(deleted),
            progress.failures,
            progress.pause_s,
            progress.error,
            disabled_reason,
        )
        if not stored:
            return False
        if done:
            await transaction.fetch(_SQL["delete_pending"], webhook.name, done)
        if progress.retries:
            await transaction.fetch(
                _SQL["store_pending"],
                webhook.name,
                [each.event_id for each in progress.retries],
                [each.subject for each in progress.retries],
                [each.attempts for each in progress.retries],
                [each.due_in_s for each in progress.retries],
            )
    return True
