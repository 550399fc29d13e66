"""Background loops of real controllers: reaping, sweeping and cleaning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from harness.controllers import Api, controller_api
from harness.fake_node import fake_drone, obedient_drone
from harness.sql import WAITING_FOR_THIS_SESSION
from plane.controller.upkeep.reaper import reap
from plane.database import cleanup, lost_backends
from plane.database.backends import StateChange, record_states
from plane.database.pool import Database, ReferencedRowDeleted, open_database
from plane.decisions.backends.idle_sweep import SweepCandidate
from plane.decisions.keys.drone_selection import CANDIDATES_VALID_S
from plane.protocol.backend_state import BackendStatus, Terminated, TerminationReason
from plane.settings import ControllerLimits

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}


@asynccontextmanager
async def upkeep(url: str) -> AsyncIterator[tuple[Api, Database, asyncpg.Connection[Any]]]:
    """A controller, what it does things with by itself, and a connection of the test's own."""
    async with controller_api(url) as api, open_database(url) as db, sql(url) as connection:
        yield api, db, connection


@asynccontextmanager
async def sql(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def status_of(api: Api, backend: str) -> dict[str, Any]:
    status, body = await api.call("GET", f"/pub/b/{backend}/status")
    assert status == 200
    entry: dict[str, Any] = body
    return entry


async def test_backends_of_a_lost_drone_are_terminated_and_their_keys_are_free(postgres_url: str) -> None:
    async with upkeep(postgres_url) as (api, db, connection):
        async with obedient_drone(api.base, "dr-lost"):
            lost = (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["backend_id"]
        await connection.execute("UPDATE drone SET last_heartbeat = now() - interval '119 seconds'")
        assert await reap(db) == 0
        # The controller may still choose among the drones that it read before.
        await asyncio.sleep(CANDIDATES_VALID_S)
        await connection.execute("UPDATE drone SET last_heartbeat = now() - interval '121 seconds'")
        async with obedient_drone(api.base, "dr-healthy"):
            healthy = (await api.connect(spawn_config=IMAGE))["backend_id"]
            # As many controllers as there are may look at once: one acts.
            assert sum(await asyncio.gather(*(reap(db) for _ in range(8)))) == 1
            entry = await status_of(api, lost)
            assert entry["status"] == "terminated"
            assert entry["termination_reason"] == "lost"
            assert entry["message"] == "its drone has sent nothing for 121 s"
            # Not before the lease has ended, whatever is known of the drone.
            assert await api.refused(key={"name": "k"}, spawn_config=IMAGE) == (503, "FailedToAcquireKey")
            await connection.execute("UPDATE backend_key SET expires_at = now()")
            assert (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["spawned"] is True
            assert (await status_of(api, healthy))["status"] != "terminated"
            assert await reap(db) == 0


async def test_only_the_controller_with_the_lock_reaps(postgres_url: str) -> None:
    async with upkeep(postgres_url) as (api, db, other):
        async with obedient_drone(api.base):
            await api.connect(spawn_config=IMAGE)
        await other.execute("UPDATE drone SET last_heartbeat = now() - interval '200 seconds'")
        lock = 0x504C_414E_4552
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock($1)", lock)
            assert await reap(db) == 0
        assert await reap(db) == 1


async def test_a_locked_backend_keeps_no_other_from_being_reaped(postgres_url: str) -> None:
    async with upkeep(postgres_url) as (api, db, connection):
        async with obedient_drone(api.base, "dr-lost"):
            locked, other = [(await api.connect(spawn_config=IMAGE))["backend_id"] for _ in range(2)]
        await connection.execute("UPDATE drone SET last_heartbeat = now() - interval '121 seconds'")
        async with connection.transaction():
            await connection.execute("SELECT FROM backend WHERE id = $1 FOR UPDATE", locked)
            # The controller may be first.
            async with asyncio.timeout(10):
                while (await status_of(api, other))["status"] != "terminated":
                    await reap(db)
            assert (await status_of(api, locked))["status"] != "terminated"
        async with asyncio.timeout(10):
            while (await status_of(api, locked))["status"] != "terminated":
                await reap(db)


async def test_a_controller_reaps_although_another_ones_lock_is_stuck(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the server that is stopped keeps its locks."""
    async with upkeep(postgres_url) as (api, db, connection), sql(postgres_url) as stuck:
        async with obedient_drone(api.base):
            await api.connect(spawn_config=IMAGE)
        async with stuck.transaction():
            await stuck.execute("SELECT pg_advisory_xact_lock($1)", lost_backends.ADVISORY_LOCK)
            await connection.execute("UPDATE drone SET last_heartbeat = now() - interval '200 seconds'")
            assert await reap(db) == 0
            monkeypatch.setattr(lost_backends, "HOLDER_STUCK_AFTER_S", 0.0)
            async with asyncio.timeout(10):
                while not await connection.fetchval("SELECT count(*) FROM backend WHERE last_status = 'terminated'"):
                    await reap(db)


async def test_drone_without_any_heartbeat_is_lost(postgres_url: str) -> None:
    async with upkeep(postgres_url) as (api, db, connection):
        async with obedient_drone(api.base):
            await api.connect(spawn_config=IMAGE)
        await connection.execute("UPDATE drone SET last_heartbeat = NULL")
        assert await reap(db) == 0  # it has connected a moment ago
        await connection.execute("UPDATE node SET last_connection_start_time = NULL")
        assert await reap(db) == 1


async def test_more_lost_backends_than_a_page_are_reaped(postgres_url: str) -> None:
    async with upkeep(postgres_url) as (api, db, connection):
        async with fake_drone(api.base):
            await api.connect(spawn_config=IMAGE)
        await connection.execute(
            "INSERT INTO backend (id, cluster, last_status, last_status_time, drone_id, last_keepalive, state)"
            " SELECT 'b' || n, 'c', 'ready', now(), drone.id, now(), '{\"status\": \"ready\", \"address\": \"a:1\"}'"
            " FROM generate_series(1, 700) n, drone"
        )
        await connection.execute("UPDATE drone SET last_heartbeat = now() - interval '200 seconds'")
        assert [await reap(db) for _ in range(3)] == [500, 201, 0]
        assert await connection.fetchval("SELECT count(*) FROM backend WHERE last_status <> 'terminated'") == 0


async def test_stuck_backend_gets_its_action_again_and_then_is_lost(postgres_url: str) -> None:
    async with (
        upkeep(postgres_url) as (api, db, connection),
        fake_drone(api.base) as drone,
    ):
        backend = (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["backend_id"]
        action = await drone.receive("Action")
        await drone.send("AckAction", {"action_id": action["action_id"]})
        async with asyncio.timeout(10):
            while not await connection.fetchval("SELECT acked_at FROM backend_action"):
                await asyncio.sleep(0.02)
        await drone.send("RenewKey", {"backend": "any", "local_time": 1})
        await drone.receive("RenewKeyResponse")
        assert await reap(db) == 0
        await connection.execute("UPDATE backend SET last_status_time = now() - interval '61 seconds'")
        assert await reap(db) == 1
        # The drone's controller sends it again, at once or with its next look, a few seconds later.
        assert await drone.receive("Action") == action
        # Not acknowledged: its controller goes on sending it, and the reaper need not.
        assert await reap(db) == 0
        await connection.execute("UPDATE backend_key SET expires_at = now() + interval '9 seconds'")
        assert await reap(db) == 1
        entry = await status_of(api, backend)
        assert (entry["status"], entry["termination_reason"]) == ("terminated", "lost")
        # If its drone is stopped, a watchdog kills it seven seconds before the lease ends.
        assert await api.refused(key={"name": "k"}, spawn_config=IMAGE) == (503, "FailedToAcquireKey")
        await connection.execute("UPDATE backend_key SET expires_at = now()")
        assert (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["spawned"] is True


async def test_backend_without_a_key_is_terminated(postgres_url: str) -> None:
    async with upkeep(postgres_url) as (api, db, connection), fake_drone(api.base) as drone:
        ids = [(await api.connect(key={"name": name}, spawn_config=IMAGE))["backend_id"] for name in "abc"]
        assert await reap(db) == 0
        await connection.execute("UPDATE backend SET last_status = 'ready', last_status_number = 4")
        # One's key has been taken away, one's has expired, one's expires in this moment.
        await connection.execute("DELETE FROM backend_key WHERE key_name = 'a'")
        await connection.execute("UPDATE backend_key SET expires_at = now() - interval '6 s' WHERE key_name = 'b'")
        await connection.execute("UPDATE backend_key SET expires_at = now() + interval '60 s' WHERE key_name = 'c'")
        assert await reap(db) == 2
        ordered: set[str] = set()
        while len(ordered) < 2:
            action = await drone.receive("Action")
            if "Terminate" in action["action"]:
                assert action["action"]["Terminate"] == {"kind": "hard", "reason": "lost"}
                ordered.add(action["backend_id"])
        assert ordered == set(ids[:2])
        assert await reap(db) == 0
        # It says that the one has ended; of the other it says nothing, and is ordered again.
        ended = {"status": "terminated", "last_status": "ready"}
        event = {"event_id": 1, "backend_id": ids[0], "state": ended, "timestamp": 1}
        await drone.send("BackendEvent", event)
        await drone.receive("AckEvent")
        await connection.execute("UPDATE backend_action SET created_at = created_at - interval '21 seconds'")
        assert await reap(db) == 1
        assert (await status_of(api, ids[1]))["status"] != "terminated"
        await connection.execute("UPDATE backend_action SET created_at = created_at - interval '51 seconds'")
        await drone.beat()
        assert await reap(db) == 1
        entry = await status_of(api, ids[1])
        assert (entry["status"], entry["termination_reason"]) == ("terminated", "lost")
        assert (await status_of(api, ids[2]))["status"] != "terminated"


async def test_running_controller_reaps(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        async with obedient_drone(api.base):
            backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        async with sql(postgres_url) as connection:
            await connection.execute("UPDATE drone SET last_heartbeat = now() - interval '200 seconds'")
    async with controller_api(postgres_url) as api, asyncio.timeout(10):
        while (await status_of(api, backend))["status"] != "terminated":
            await asyncio.sleep(0.02)
        assert (await status_of(api, backend))["termination_reason"] == "lost"


async def test_cleanup_deletes_only_old_rows(postgres_url: str) -> None:
    async with upkeep(postgres_url) as (api, db, connection), obedient_drone(api.base):
        ids = [(await api.connect(key={"name": f"k{n}"}, spawn_config=IMAGE))["backend_id"] for n in range(7)]
        for backend in ids[:5]:
            await api.call("POST", f"/ctrl/b/{backend}/hard-terminate")
        async with asyncio.timeout(10):
            while await connection.fetchval("SELECT count(*) FROM backend WHERE last_status = 'terminated'") < 5:
                await asyncio.sleep(0.02)
        # Two of the terminated ones are old, and so is one that runs; one token and all events are old.
        await connection.execute(
            "UPDATE backend SET last_status_time = now() - interval '8 days' WHERE id = ANY ($1)", [*ids[:2], ids[6]]
        )
        await connection.execute("UPDATE event SET created_at = now() - interval '8 days'")
        await connection.execute(
            "UPDATE token SET expiration_time = now() - interval '1 s' WHERE backend_id = $1", ids[5]
        )
        await cleanup.delete_expired_tokens(db)
        assert await connection.fetchval("SELECT count(*) FROM token WHERE backend_id = $1", ids[5]) == 0
        done = await cleanup.delete_old(db, 7, 1)
        assert done.backends == 2
        assert done.events > 10
        left = {row["id"] for row in await connection.fetch("SELECT id FROM backend")}
        assert left == set(ids[2:])
        for table in ("token", "backend_action", "backend_state"):
            rows = await connection.fetch(f"SELECT DISTINCT backend_id FROM {table}")
            assert not {row["backend_id"] for row in rows} & set(ids[:2]), table
        assert (await status_of(api, ids[6]))["status"] == "ready"


async def test_cleanup_frees_no_key_of_a_backend_that_may_still_run(postgres_url: str) -> None:
    async with upkeep(postgres_url) as (api, db, connection), obedient_drone(api.base):
        backend = (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["backend_id"]
        lost = Terminated(last_status=BackendStatus.READY, reason=TerminationReason.LOST)
        await record_states(db, [StateChange(backend, lost, uncertain=True)])
        assert (await cleanup.delete_old(db, 0, 100)).backends == 0
        assert await connection.fetchval("SELECT id FROM backend_key") == backend
        await connection.execute("UPDATE backend_key SET expires_at = now()")
        assert (await cleanup.delete_old(db, 0, 100)).backends == 1


async def test_cleanup_deletes_fencing_tokens_only_of_free_keys(postgres_url: str) -> None:
    async with upkeep(postgres_url) as (api, db, connection), fake_drone(api.base):
        for name in ("held", "free", "free but recent"):
            await api.connect(key={"name": name}, spawn_config=IMAGE)
        await connection.execute("UPDATE plane_key_fencing SET fencing_token = 1 WHERE key_name <> 'free but recent'")
        await connection.execute("DELETE FROM backend_key WHERE key_name <> 'held'")
        await cleanup.delete_old(db, 7, 100)
        rows = await connection.fetch("SELECT key_name FROM plane_key_fencing ORDER BY 1")
        assert [row["key_name"] for row in rows] == ["free but recent", "held"]


async def delete_backend(connection: asyncpg.Connection[Any], backend: str) -> None:
    for table in ("token", "backend_action", "backend_state"):
        await connection.execute(f"DELETE FROM {table} WHERE backend_id = $1", backend)
    for table in ("backend_key", "backend"):
        await connection.execute(f"DELETE FROM {table} WHERE id = $1", backend)


@pytest.mark.parametrize("knows_the_holder", [True, False])
async def test_key_of_a_concurrently_deleted_holder_is_free(postgres_url: str, knows_the_holder: bool) -> None:
    async with sql(postgres_url) as connection:
        # What a database's owner has set for all is not to matter.
        await connection.execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable',"
            " current_database()); END $$"
        )
    async with (
        upkeep(postgres_url) as (api, _, connection),
        controller_api(postgres_url) as another,
        # Says nothing of its backends, which would be in the way of their deletion.
        fake_drone(api.base),
    ):
        former = await api.connect(key={"name": "k"}, spawn_config=IMAGE)
        asked = api if knows_the_holder else another
        deleting = connection.transaction(isolation="read_committed")
        await deleting.start()
        await delete_backend(connection, former["backend_id"])
        asking = asyncio.create_task(asked.connect(key={"name": "k"}, spawn_config=IMAGE))
        async with asyncio.timeout(10):
            while not await connection.fetchval(WAITING_FOR_THIS_SESSION):
                await asyncio.sleep(0.01)
        await deleting.commit()
        assert (await asking)["spawned"] is True


async def test_sweep_skips_a_concurrently_deleted_backend(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    async def deleted_meanwhile(db: Database, drone_ids: Sequence[int]) -> list[SweepCandidate]:
        nonlocal looks
        looks += 1
        return [SweepCandidate("deleted", drone_ids[0], -1.0)]

    monkeypatch.setattr("plane.database.backends.backends_to_sweep", deleted_meanwhile)
    async with upkeep(postgres_url) as (api, _, _), fake_drone(api.base), asyncio.timeout(30):
        while looks < 2:
            await asyncio.sleep(0.05)


async def test_cleaner_continues_after_a_failed_deletion(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = cleanup.delete_old, 0

    async def taken_at_first(*args: Any) -> cleanup.DeletedRows:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ReferencedRowDeleted("something that this refers to was deleted meanwhile")
        return await real(*args)

    monkeypatch.setattr(cleanup, "delete_old", taken_at_first)
    async with (
        controller_api(postgres_url, cleanup_min_age_days=0, limits=ControllerLimits(cleanup_interval_s=0.05)) as api,
        sql(postgres_url) as connection,
        obedient_drone(api.base),
    ):
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        await api.call("POST", f"/ctrl/b/{backend}/hard-terminate")
        async with asyncio.timeout(30):
            while await connection.fetchval("SELECT count(*) FROM backend"):
                await asyncio.sleep(0.05)
    assert tries > 1
