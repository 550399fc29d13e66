"""The batched statements of connect requests, with what this controller remembers between them.

It remembers for a moment which drones may take backends (`decisions.keys.drone_selection`), which keys are certainly
held (`decisions.keys.lease_cache`), and the backends that it stored last. `plane.controller.batched_statements` runs
the statements.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from msgspec.structs import replace

from plane.database import connect
from plane.database.connect import KeyQuery, NewBackend
from plane.database.pool import Database
from plane.decisions.keys.connect_request import KeyLookup
from plane.decisions.keys.drone_selection import DroneCandidates
from plane.decisions.keys.lease_cache import LeaseCache
from plane.protocol.keys import KeyConfig
from plane.protocol.notifications import Event, terminated_backend
from plane.timing import KEY_LEASE_S

__all__ = ["ConnectStatements"]

# Spawns whose events may not have been received when the database fails over.
MAX_RECENT_SPAWNS = 500


class ConnectStatements:
    """The connect statements of one controller. `on_state_event` must be subscribed to backend states."""

    def __init__(self, db: Database) -> None:
        self._db = db
        # By cluster and pool.
        self._candidates: dict[tuple[str, str], DroneCandidates] = {}
        self._leases = LeaseCache()
        self._recent_spawns: deque[str] = deque(maxlen=MAX_RECENT_SPAWNS)
        self._clock = asyncio.get_running_loop().time

    def is_held(self, key: KeyConfig) -> bool:
        """Return whether the key is certainly held, so that `reuse_keys` suffices."""
        return self._leases.is_held(key, self._clock())

    async def reuse_keys(self, queries: Sequence[KeyQuery]) -> list[KeyLookup | None]:
        """Return the live holder of each key, or None; see `plane.database.connect.reuse_keys`."""
        return await connect.reuse_keys(self._db, queries)

    async def look_up_keys(self, queries: Sequence[KeyQuery]) -> list[KeyLookup]:
        """Return each key's holder, or the drone that is to spawn a backend for it."""
        now_s = self._clock()
        self._candidates = {pool: drones for pool, drones in self._candidates.items() if drones.are_valid(now_s)}
        # They may be forgotten before the statement has returned.
        candidates = self._candidates.copy()
        found = await connect.look_up_keys(self._db, queries, candidates)
        for pool, drones in found.candidates.items():
            candidates[pool] = DroneCandidates(drones, now_s, are_all=len(drones) < connect.MAX_CANDIDATES)
            if drones:
                self._candidates[pool] = candidates[pool]
        lookups = []
        for query, key in zip(queries, found.keys, strict=True):
            lookup = key
            if key.held is not None and key.held.live:
                if key.lease_left_s is not None:
                    self._leases.record(query.key, key.held.backend_id, now_s + key.lease_left_s)
            elif query.cluster is not None:
                lookup = replace(key, drone=candidates[query.cluster, query.pool].choose(query.best_of))
            lookups.append(lookup)
        return lookups

    async def spawn_backends(self, wanted: Sequence[NewBackend]) -> list[bool]:
        """Store new backends; see `plane.database.connect.spawn_backends`."""
        now_s = self._clock()
        stored = await connect.spawn_backends(self._db, wanted)
        for new, is_stored in zip(wanted, stored, strict=True):
            if is_stored:
                self._recent_spawns.append(new.backend_id)
            else:
                # Its drone may be the reason. The next attempt chooses among the drones that there are then.
                self._candidates.pop((new.cluster, new.config.pool), None)
            if is_stored and not new.key_is_random:
                self._leases.record(new.key.key, new.backend_id, now_s + KEY_LEASE_S)
        return stored

    def recent_spawns(self) -> list[str]:
        """Return the ids of the backends that this controller stored last, which the database must have."""
        return list(self._recent_spawns)

    def on_state_event(self, event: Event) -> None:
        """Handle a backend's new state: a terminated backend frees its key."""
        if (backend := terminated_backend(event)) is not None:
            self._leases.remove_backend(backend)
