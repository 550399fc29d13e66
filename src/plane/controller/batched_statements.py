"""The statements that a controller executes for its nodes and clients in batches: one `Batcher` per kind.

A batch is one statement and one commit for all nodes together, so that the load on the database grows with time and not
with the number of nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from plane.controller.connect_statements import ConnectStatements
from plane.database import actions, backends, keys, nodes
from plane.database.batches import Batcher
from plane.database.pool import Database
from plane.tasks import run_together

__all__ = ["BatchedStatements"]

# Of statements whose result no client waits for: heartbeats, keepalives, acknowledgements, metrics.
BACKGROUND_SPACING_S = 0.025
# Of renewals, whose result a drone waits for with seconds to spare.
RENEWAL_SPACING_S = 0.008
# Concurrency and spacing of lookups. A few large batches cost least with a fast disk; with a slow one several must wait
# for it together. Measured with syncs of 0.1, 1 and 3 ms; the method is in docs/internals/performance.md.
LOOKUP_CONCURRENCY = 4
LOOKUP_SPACING_S = 0.0003
# Lookups of routes only read, so that no disk is waited for. A second batch overlaps with one that takes long.
ROUTE_SPACING_S = 0.002


class BatchedStatements:
    """The batchers of one controller. `run` must be running for anything to be executed."""

    def __init__(self, db: Database, connect: ConnectStatements) -> None:
        # Clients wait for these. States of one backend must stay in order. Statements that notify (states, spawns)
        # commit one at a time anyway, since PostgreSQL takes a lock for notifications.
        self.states = Batcher(partial(backends.record_states, db))
        self.spawns = Batcher(connect.spawn_backends)
        self.lookups = Batcher(connect.look_up_keys, max_concurrency=LOOKUP_CONCURRENCY, spacing_s=LOOKUP_SPACING_S)
        self.reuses = Batcher(connect.reuse_keys, max_concurrency=LOOKUP_CONCURRENCY, spacing_s=LOOKUP_SPACING_S)
        self.routes = Batcher(
            partial(backends.routes, db), max_concurrency=LOOKUP_CONCURRENCY, spacing_s=ROUTE_SPACING_S
        )
        self.renewals = Batcher(partial(keys.renew, db), spacing_s=RENEWAL_SPACING_S)
        self.heartbeats = Batcher(partial(nodes.drone_heartbeats, db), spacing_s=BACKGROUND_SPACING_S)
        self.keepalives = Batcher(partial(backends.keep_alive, db), spacing_s=BACKGROUND_SPACING_S)
        self.acknowledgements = Batcher(partial(actions.acknowledge, db), spacing_s=BACKGROUND_SPACING_S)
        self.pending_checks = Batcher(partial(actions.have_pending, db), spacing_s=BACKGROUND_SPACING_S)
        self.metrics = Batcher(partial(backends.publish_metrics, db), spacing_s=BACKGROUND_SPACING_S)
        # By the values of the metrics' label ``write``.
        self.by_label: Mapping[str, Batcher[Any, Any]] = {
            "states": self.states,
            "spawns": self.spawns,
            "look_ups": self.lookups,
            "reuses": self.reuses,
            "routes": self.routes,
            "renewals": self.renewals,
            "heartbeats": self.heartbeats,
            "keepalives": self.keepalives,
            "acknowledgements": self.acknowledgements,
            "pending_checks": self.pending_checks,
            "metrics": self.metrics,
        }

    async def run(self) -> None:
        """Execute submitted statements until cancelled."""
        await run_together(*(batcher.run() for batcher in self.by_label.values()))

    async def wait_idle(self) -> None:
        """Return when everything that was submitted has been executed."""
        await asyncio.gather(*(batcher.wait_idle() for batcher in self.by_label.values()))
