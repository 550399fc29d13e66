"""Keeps the database small: expired tokens, and what is older than ``--cleanup-min-age-days``, every few minutes.

Rule: page 3, "Cleanup". The first time is random, so that controllers started together do not clean together.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from plane import timing
from plane.database import cleanup
from plane.database.pool import Database, DatabaseUnavailable, RowGone
from plane.settings import ControllerSettings

__all__ = ["clean_for_ever"]

log = structlog.get_logger("plane.controller")


async def clean_for_ever(db: Database, settings: ControllerSettings) -> None:
    """Clean now and then, until cancelled."""
    await asyncio.sleep(random.uniform(0, timing.CLEANUP_INTERVAL_S))  # noqa: S311 - spreads load, guards nothing
    while True:
        try:
            await _clean(db, settings)
        except (DatabaseUnavailable, RowGone) as error:
            # A token may be given to a backend in the moment in which that is deleted.
            log.warning("not cleaned; trying again later", error=str(error))
        await asyncio.sleep(timing.CLEANUP_INTERVAL_S)


async def _clean(db: Database, settings: ControllerSettings) -> None:
    await cleanup.delete_expired_tokens(db)
    if settings.cleanup_min_age_days is not None:
        done = await cleanup.delete_old(db, settings.cleanup_min_age_days, settings.cleanup_batch_size)
        if done.backends or done.events:
            log.info("cleaned the database", backends=done.backends, events=done.events)
