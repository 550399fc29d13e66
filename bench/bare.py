"""The floor of connect: the controller's own SQL, sent by a bare asyncpg client."""

from __future__ import annotations

import time
from typing import Any

import asyncpg

from plane.database.connect import KeyQuery, NewBackend, TokenGrant, look_up_keys, reuse_keys, spawn_backends
from plane.database.pool import Transaction
from plane.decisions.keys.lease import lease_deadlines
from plane.protocol.drone_messages import BackendAction, BackendOrder, SpawnOrder
from plane.protocol.keys import AcquiredKey, KeyConfig
from plane.protocol.spawn import SpawnConfig
from plane.protocol.times import DroneTime
from plane.random_ids import random_name, random_token

__all__ = ["BareClient"]


class BareClient:
    """One connection. Its backends are for a drone that is never connected, so that nothing becomes of them."""

    def __init__(self, sql: asyncpg.Connection[Any], cluster: str) -> None:
        self._sql = sql
        self._db = Transaction(sql)
        self._cluster = cluster
        self._drone = 0

    async def add_silent_drone(self) -> None:
        """That drone."""
        self._drone = await self._sql.fetchval(
            "WITH n AS (INSERT INTO node (kind, name, cluster, plane_version, plane_hash, ip)"
            " VALUES ('Drone', 'dr-bare', 'bench', '', '', '127.0.0.1') RETURNING id)"
            " INSERT INTO drone (id, ready, last_local_time) SELECT id, false, now() FROM n RETURNING id"
        )

    async def reuse(self, key: str) -> None:
        """The statement that an existing key costs."""
        await reuse_keys(self._db, [self._query(key)])

    def _query(self, key: str) -> KeyQuery:
        return KeyQuery(KeyConfig(key), _grant(), self._cluster, "", 2)

    async def new_key(self) -> None:
        """The two statements that a new key costs."""
        key, backend = KeyConfig(random_name()), random_name()
        await look_up_keys(self._db, [self._query(key.name)])
        acquired = AcquiredKey(key, lease_deadlines(DroneTime(0)), int(time.time() * 1000))
        action = BackendAction(f"ak-{backend}", backend, self._drone, BackendOrder(spawn=SpawnOrder({}, acquired)))
        config = SpawnConfig(executable={})
        new = NewBackend(backend, "bench", config, acquired, False, None, action, _grant(), DroneTime(0))
        await spawn_backends(self._db, [new])


def _grant() -> TokenGrant:
    return TokenGrant(random_token(), random_token(), None, "{}")
