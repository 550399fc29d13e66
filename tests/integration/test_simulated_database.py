"""The simulation's model of the statements about keys does what PostgreSQL does, for any sequence of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plane.database import actions, backends, clock, connect, keys, nodes
from plane.database.migrate import migrate
from plane.database.pool import Database, open_database
from plane.decisions.keys.connect_request import KeyLookup, next_fencing_token
from plane.decisions.keys.drone_selection import DroneCandidate
from plane.decisions.keys.lease import lease_deadlines
from plane.protocol.backend_state import BackendStatus, Terminated
from plane.protocol.drone_messages import BackendAction, BackendOrder, SpawnOrder
from plane.protocol.handshake import DroneIdentity, Version
from plane.protocol.keys import AcquiredKey, KeyConfig
from plane.protocol.names import NodeKind
from plane.protocol.spawn import SpawnConfig
from plane.protocol.times import DroneTime
from simulation.database import DatabaseModel, Mutations
from simulation.world import World

CLUSTER = "localhost:9090"
VERSION = Version("0", "test")
DRONES = 2
KEYS = 2
EXAMPLES = 100
# Sums of these reach every limit: 3, 5, 45 and 60 s.
ADVANCES_S = (1, 2, 20, 40)
TABLES = "backend, backend_state, backend_key, backend_action, token, event, drone, node, controller, plane_key_fencing"

Step = tuple[str, int, int]
NAMES = ("look up", "spawn", "renew", "end", "register", "heartbeat", "acknowledge", "advance", "confirm", "fail over")
# Lookups and spawns are most of what matters, of what was looked up and spawned last.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("look up", "spawn", "look up", "spawn", "advance", *NAMES)),
        st.integers(0, 7),
        st.integers(0, 1),
    ),
    min_size=25,
    max_size=50,
)


class Both:
    """The model and the database, to which each step is applied, and whose results are compared."""

    def __init__(self, db: Database, mutations: Mutations) -> None:
        self._db = db
        self._world = World(0)
        self._model = DatabaseModel(self._world, mutations)
        self._registrations: dict[int, nodes.Registration] = {}
        self._identities: dict[int, tuple[str, str]] = {}
        self._local_ms = 1_000_000
        self._lookups: list[tuple[int, KeyLookup, KeyLookup]] = []
        self._backends: list[str] = []
        self._tokens = itertools.count()

    async def begin(self) -> None:
        """Empty the database, and connect the drones."""
        await self._db.execute(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE")
        await self._db.execute("UPDATE plane_clock SET grants_after = NULL, confirmed_at = clock_timestamp()")
        await nodes.controller_heartbeat(self._db, "co-1", VERSION, online=True)
        for drone in range(DRONES):
            await self.register(drone, 0)
            await self.heartbeat(drone, 0)

    async def apply(self, step: Step) -> None:
        name, first, second = step
        await getattr(self, name.replace(" ", "_"))(first, second)

    async def look_up(self, key: int, _: int) -> None:
        name = f"k{key % KEYS}"
        grant = connect.TokenGrant(f"t{next(self._tokens)}", "s", None, "{}")
        query = connect.KeyQuery(KeyConfig(name), grant, CLUSTER, "", 100)
        found = await connect.look_up_keys(self._db, [query])
        real, candidates = found.keys[0], found.candidates[CLUSTER, ""]
        expected = self._model.look_up(name)
        held = [
            None if each.held is None else (each.held.backend_id, each.held.live, each.held.status == "terminated")
            for each in (real, expected)
        ]
        assert held[0] == held[1]
        assert real.removed == expected.removed
        if real.held is None or not real.held.live:
            assert (real.may_grant, real.last_fencing_token) == (expected.may_grant, expected.last_fencing_token)
            known = {each.candidate.drone_id: each.candidate.local_time for each in candidates}
            assert (expected.drone is None) == (not known)
            if expected.drone is not None:
                assert known[expected.drone.drone_id] == expected.drone.local_time
                # Both take the token from the same time.
                expected = msgspec.structs.replace(expected, db_now_ms=real.db_now_ms)
                self._lookups.append((key % KEYS, msgspec.structs.replace(real, drone=expected.drone), expected))

    async def spawn(self, number: int, _: int) -> None:
        if not self._lookups:
            return
        key, real, expected = self._lookups[-1 - number // 2 % min(2, len(self._lookups))]
        backend = f"b{len(self._backends)}"
        assert real.drone is not None
        stored = await connect.spawn_backends(self._db, [_new_backend(backend, f"k{key}", real, real.drone)])
        action = self._model.spawn(f"k{key}", backend, expected)
        assert stored == [action is not None]
        if action is not None:
            self._backends.append(backend)

    async def renew(self, number: int, _: int) -> None:
        if self._backends:
            backend = self._backends[-1 - number // 2 % min(3, len(self._backends))]
            assert await keys.renew(self._db, [backend]) == [self._model.renew(backend)]

    async def end(self, number: int, uncertain: int) -> None:
        if self._backends:
            backend = self._backends[-1 - number // 2 % min(3, len(self._backends))]
            state = Terminated(last_status=BackendStatus.SCHEDULED)
            change = backends.StateChange(backend, state, uncertain=bool(uncertain))
            if await backends.record_states(self._db, [change]) == [True]:
                self._model.terminated(backend, uncertain=bool(uncertain))

    async def register(self, number: int, is_another: int) -> None:
        drone = number % DRONES
        former = self._identities.get(drone, ("store-0", "clock"))
        store = f"{former[0]}x" if is_another else former[0]
        identity = self._identities[drone] = (store, "clock")
        async with self._db.transaction() as transaction:
            registration = await nodes.register(
                transaction, NodeKind.DRONE, CLUSTER, f"dr-{drone + 1}", VERSION, "co-1", "127.0.0.1"
            )
            await nodes.register_drone(transaction, registration, "", DroneIdentity(store, "clock", "boot", "machine"))
            if is_another:
                await nodes.void_spawns(transaction, registration.node_id)
        self._registrations[drone] = registration
        assert registration.node_id == drone + 1
        self._model.register(str(drone + 1), identity)

    async def heartbeat(self, number: int, _: int) -> None:
        drone = number % DRONES
        self._local_ms += 1000
        heartbeat = nodes.DroneHeartbeat(self._registrations[drone], DroneTime(self._local_ms))
        await nodes.drone_heartbeats(self._db, [heartbeat])
        self._model.heartbeat(str(drone + 1), self._identities[drone], self._local_ms)

    async def acknowledge(self, number: int, _: int) -> None:
        drone = number % DRONES + 1
        pending = [action.backend_id async for action in actions.pending(self._db, drone)]
        assert pending == [action.backend_id for action in self._model.pending(str(drone))]
        if pending:
            await actions.acknowledge(self._db, [actions.Acknowledgement(f"a-{pending[0]}", drone)])
            self._model.acknowledge(pending[0])

    async def advance(self, number: int, _: int) -> None:
        """Let time pass: for the database, all that it knows moves into the past."""
        seconds = ADVANCES_S[number % len(ADVANCES_S)]
        self._world.now += seconds
        back = f"- interval '{seconds} seconds'"
        await self._db.execute(f"UPDATE backend_key SET expires_at = expires_at {back}")
        await self._db.execute(f"UPDATE drone SET last_heartbeat = last_heartbeat {back}")
        await self._db.execute(
            f"UPDATE plane_clock SET grants_after = grants_after {back}, confirmed_at = confirmed_at {back}"
        )

    async def confirm(self, *_: int) -> None:
        row = await clock.read(self._db, lambda: self._world.now)
        await clock.confirm(self._db, row, "boot")
        self._model.confirm(replace(row.reading, database_s=self._model.clock(), shifted_s=self._model.shifted_s))

    async def fail_over(self, _: int, lost: int) -> None:
        """Record a failover; what it lost is up to the simulation."""
        row = await clock.read(self._db, lambda: self._world.now)
        wait_s = 60.0 if lost else 5.0
        await clock.record_failover(self._db, row.timeline, wait_s)
        self._model.record_failover(wait_s)


def _new_backend(backend: str, key: str, lookup: KeyLookup, drone: DroneCandidate) -> connect.NewBackend:
    token = next_fencing_token(lookup.db_now_ms, lookup.last_fencing_token)
    acquired = AcquiredKey(KeyConfig(key), lease_deadlines(drone.local_time), token)
    order = BackendOrder(spawn=SpawnOrder({}, acquired))
    return connect.NewBackend(
        backend_id=backend,
        cluster=CLUSTER,
        config=SpawnConfig(executable={}),
        key=acquired,
        key_is_random=False,
        static_token=None,
        action=BackendAction(f"a-{backend}", backend, drone.drone_id, order),
        grant=connect.TokenGrant(f"t-{backend}", "s", None, "{}"),
        leased_at=drone.local_time,
    )


@asynccontextmanager
async def database(url: str) -> AsyncIterator[Database]:
    await migrate(url)
    async with open_database(url) as db:
        yield db


# Steps that tell a model without a rule from PostgreSQL.
TELLING: dict[str, list[Step]] = {
    "short_key_lease": [
        *(("look up", 0, 0), ("spawn", 0, 0)),
        *(("advance", 3, 0), ("advance", 1, 0), ("confirm", 0, 0), ("look up", 0, 0)),
    ],
    "conflict_ignored": [("look up", 0, 0), ("look up", 0, 0), ("spawn", 2, 0), ("spawn", 0, 0)],
    "expired_key_overwritten": [
        *(("look up", 0, 0), ("spawn", 0, 0)),
        *(("advance", 3, 0), ("advance", 2, 0), ("advance", 1, 0), ("confirm", 0, 0)),
        *(("heartbeat", 0, 0), ("heartbeat", 1, 0), ("look up", 0, 0), ("look up", 0, 0)),
    ],
    "renewal_after_expiry": [("look up", 0, 0), ("spawn", 0, 0), ("end", 0, 0), ("renew", 0, 0)],
    "grants_after_failover": [("fail over", 0, 1), ("look up", 0, 0)],
}


@contextmanager
def comparison(url: str, mutations: Mutations) -> Iterator[Callable[[list[Step]], None]]:
    """Yield what applies steps to both, on an empty database, and compares all results."""
    with asyncio.Runner() as runner:
        opened = database(url)
        db = runner.run(opened.__aenter__())

        async def compare(steps: list[Step]) -> None:
            both = Both(db, mutations)
            await both.begin()
            for step in steps:
                await both.apply(step)

        try:
            yield lambda steps: runner.run(compare(steps))
        finally:
            runner.run(opened.__aexit__(None, None, None))


def test_the_model_does_what_the_statements_do(postgres_url: str) -> None:
    with comparison(postgres_url, Mutations()) as compare:

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(STEPS)
        def check(steps: list[Step]) -> None:
            compare(steps)

        check()


@pytest.mark.parametrize("rule", TELLING)
def test_a_model_that_leaves_out_a_rule_differs(postgres_url: str, rule: str) -> None:
    with comparison(postgres_url, Mutations()) as compare:
        compare(TELLING[rule])
    with comparison(postgres_url, Mutations(**{rule: True})) as compare, pytest.raises(AssertionError):
        compare(TELLING[rule])
