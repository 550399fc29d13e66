"""Deletes expired tokens and old events of the feed, and with ``--cleanup-min-age-days`` also old backends.

It runs every few minutes. The first run is delayed at random, so that controllers that start together do not clean
together.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from plane.database import cleanup, event_feed
from plane.database.pool import Database, DatabaseUnavailable, ReferencedRowDeleted
from plane.settings import ControllerSettings

__all__ = ["run_cleaner"]

log = structlog.get_logger("plane.controller")


async def run_cleaner(db: Database, settings: ControllerSettings) -> None:
    """Clean periodically until cancelled."""
    interval_s = settings.limits.cleanup_interval_s
    await asyncio.sleep(random.uniform(0, interval_s))  # noqa: S311 - spreads load, guards nothing
    while True:
        try:
            await _clean(db, settings)
        except (DatabaseUnavailable, ReferencedRowDeleted) as error:
            # A token may be stored for a backend in the moment in which that is deleted.
            log.warning("database cleanup failed; retrying later", error=str(error))
        await asyncio.sleep(interval_s)


async def _clean(db: Database, settings: ControllerSettings) -> None:
    await cleanup.delete_expired_tokens(db)
    await event_feed.prune(db, settings.event_retention_days)
    if settings.cleanup_min_age_days is not None:
        done = await cleanup.delete_old(db, settings.cleanup_min_age_days, settings.cleanup_batch_size)
        if done.backends or done.events:
            log.info("database cleaned", backends=done.backends, events=done.events)
