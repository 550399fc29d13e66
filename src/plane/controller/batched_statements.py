"""What nodes and clients of this controller ask of the database, put together: one `Batcher` per kind.

A batch is one statement and one commit for all nodes together, so that the database's work grows with time and not
with the number of nodes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from plane.database import actions, backends, connect, keys, nodes
from plane.database.batches import Batcher
from plane.database.connect import Lookup, NewBackend, Question
from plane.database.pool import Database
from plane.decisions.keys.drone_selection import BackendCounts
from plane.decisions.keys.lease_cache import HeldKeys
from plane.protocol.notifications import Event, ended_backend
from plane.tasks import run_together
from plane.timing import KEY_LEASE_S

__all__ = ["Writes"]

# For what nobody waits for: heartbeats, keepalives, acknowledgements, metrics.
UNHURRIED_S = 0.02
# For renewals, on which a drone waits, with seconds to spare.
SOON_S = 0.005
# Look-ups under way at once, and how far apart they start: with a quick disk few large ones cost least, with a slow one
# several must wait for it together. Tried with syncs of 0.1, 1 and 3 ms; docs/performance.md tells how.
LOOK_UPS_AT_ONCE = 4
APART_S = 0.0003
# Spawns whose events may not have been heard of when the database fails over.
SPAWNED_REMEMBERED = 500


class Writes:
    """The batchers of one controller. `run` must be running for anything to be written, and `hear` be called."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._counts = BackendCounts()
        self._held = HeldKeys()
        self._spawned: deque[str] = deque(maxlen=SPAWNED_REMEMBERED)
        self._clock = asyncio.get_running_loop().time
        # Clients wait for these. States of one backend must stay in order; and what notifies (states, spawns) commits
        # one at a time anyway, since PostgreSQL locks for it.
        self.states = Batcher(partial(backends.record_states, db))
        self.spawns = Batcher(self._spawn_backends)
        self.look_ups = Batcher(self._look_up_keys, at_once=LOOK_UPS_AT_ONCE, apart_s=APART_S)
        self.reuses = Batcher(partial(connect.reuse_keys, db), at_once=LOOK_UPS_AT_ONCE, apart_s=APART_S)
        self.routes = Batcher(partial(backends.routes, db), at_once=LOOK_UPS_AT_ONCE, apart_s=APART_S)
        self.renewals = Batcher(partial(keys.renew, db), collect_s=SOON_S)
        self.heartbeats = Batcher(partial(nodes.drone_heartbeats, db), collect_s=UNHURRIED_S)
        self.keepalives = Batcher(partial(backends.keep_alive, db), collect_s=UNHURRIED_S)
        self.acknowledgements = Batcher(partial(actions.acknowledge, db), collect_s=UNHURRIED_S)
        self.pending_checks = Batcher(partial(actions.have_pending, db), collect_s=UNHURRIED_S)
        self.metrics = Batcher(partial(backends.publish_metrics, db), collect_s=UNHURRIED_S)

    def first_trip(self, asked: Question) -> Batcher[Question, Lookup] | Batcher[Question, Lookup | None]:
        """Where to put a connect's question first. If that does not know, `look_ups` does."""
        return self.reuses if self._held.holds(asked.key, self._clock()) else self.look_ups

    async def _look_up_keys(self, questions: Sequence[Question]) -> list[Lookup]:
        now_s = self._clock()
        found = await connect.look_up_keys(self._db, self._counts, questions)
        for asked, each in zip(questions, found, strict=True):
            held, lease_left_s = each.key.held, each.lease_left_s
            if held is not None and held.live and lease_left_s is not None:
                self._held.saw(asked.key, held.backend_id, now_s + lease_left_s)
        return found

    async def _spawn_backends(self, wanted: Sequence[NewBackend]) -> list[bool]:
        now_s = self._clock()
        stored = await connect.spawn_backends(self._db, wanted)
        for new, is_stored in zip(wanted, stored, strict=True):
            if is_stored:
                self._spawned.append(new.backend_id)
            if is_stored and not new.key_is_random:
                self._held.saw(new.key.key, new.backend_id, now_s + KEY_LEASE_S)
        return stored

    def spawned_lately(self) -> list[str]:
        """The backends that this controller stored last: ids that the database must have."""
        return list(self._spawned)

    def hear(self, event: Event) -> None:
        """A backend has entered a state: the key of one that is terminated is free."""
        if (backend := ended_backend(event)) is not None:
            self._held.ended(backend)

    async def run(self) -> None:
        """Write, until cancelled."""
        await run_together(*(batcher.run() for batcher in self.all().values()))

    async def until_idle(self) -> None:
        """Return when everything that was put has been written."""
        await asyncio.gather(*(batcher.until_idle() for batcher in self.all().values()))

    def all(self) -> dict[str, Batcher[Any, Any]]:
        """Every batcher, by its name here."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Batcher)}
