"""What nodes and clients of this controller ask of the database, put together: one `Batcher` per kind.

A batch is one statement and one commit for all nodes together, so that the database's work grows with time and not
with the number of nodes.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from plane.database import actions, backends, connecting, keys, nodes
from plane.database.batches import Batcher
from plane.database.pool import Database
from plane.decisions.drone_choice import BackendCounts
from plane.ownership import run_together

__all__ = ["Writes"]

# For what nobody waits for: heartbeats, keepalives, acknowledgements, metrics.
UNHURRIED_S = 0.02
# For renewals, on which a drone waits, with seconds to spare.
SOON_S = 0.005
# Look-ups under way at once, and how far apart they start: with a quick disk few large ones cost least, with a slow one
# several must wait for it together. Tried with syncs of 0.1, 1 and 3 ms; docs/performance.md tells how.
LOOK_UPS_AT_ONCE = 4
APART_S = 0.0003


class Writes:
    """The batchers of one controller. `run` must be running for anything to be written."""

    def __init__(self, db: Database) -> None:
        # Clients wait for these. States of one backend must stay in order; and what notifies (states, spawns) commits
        # one at a time anyway, since PostgreSQL locks for it.
        self.states = Batcher(partial(backends.record_states, db))
        self.spawns = Batcher(partial(connecting.spawn_backends, db))
        self.look_ups = Batcher(
            partial(connecting.look_up_keys, db, BackendCounts()), at_once=LOOK_UPS_AT_ONCE, apart_s=APART_S
        )
        self.renewals = Batcher(partial(keys.renew, db), collect_s=SOON_S)
        self.heartbeats = Batcher(partial(nodes.drone_heartbeats, db), collect_s=UNHURRIED_S)
        self.keepalives = Batcher(partial(backends.keep_alive, db), collect_s=UNHURRIED_S)
        self.acknowledgements = Batcher(partial(actions.acknowledge, db), collect_s=UNHURRIED_S)
        self.pending_checks = Batcher(partial(actions.have_pending, db), collect_s=UNHURRIED_S)
        self.metrics = Batcher(partial(backends.publish_metrics, db), collect_s=UNHURRIED_S)

    async def run(self) -> None:
        """Write, until cancelled."""
        await run_together(*(batcher.run() for batcher in self.all().values()))

    async def until_idle(self) -> None:
        """Return when everything that was put has been written."""
        await asyncio.gather(*(batcher.until_idle() for batcher in self.all().values()))

    def all(self) -> dict[str, Batcher[Any, Any]]:
        """Every batcher, by its name here."""
        return vars(self)
