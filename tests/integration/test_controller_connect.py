"""Connect on a real controller and database, with drones that only speak the protocol of Plane 0.5.5."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from harness.controllers import controller_api
from harness.fake_node import CLUSTER, fake_drone, obedient_drone

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}


async def execute(url: str, statement: str, *args: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement, *args)
    finally:
        await connection.close()


async def test_new_key_spawns_a_backend_and_notifies_the_drone(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base, local_time_ms=1_000_000) as drone:
        answer = await api.connect(key={"name": "k", "namespace": "n", "tag": "t"}, spawn_config=IMAGE)
        assert answer["spawned"] is True
        assert answer["drone"] == "dr-fake"
        assert answer["status"] == "scheduled"
        assert answer["url"] == f"http://{CLUSTER}/{answer['token']}/"
        assert answer["status_url"] == f"{api.base}/pub/b/{answer['backend_id']}/status"
        action = await drone.receive("Action")
        assert action["backend_id"] == answer["backend_id"]
        spawn = action["action"]["Spawn"]
        assert spawn["executable"] == {"image": "example/image"}
        assert spawn["key"]["key"] == {"name": "k", "namespace": "n", "tag": "t"}
        assert spawn["key"]["deadlines"] == {
            "renew_at": 1_030_000,
            "soft_terminate_at": 1_040_000,
            "hard_terminate_at": 1_050_000,
        }


async def test_held_key_returns_its_backend_with_a_new_token(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        first = await api.connect(key={"name": "k"}, spawn_config=IMAGE)
        second = await api.connect(key={"name": "k"}, user="bob")
        assert second["spawned"] is False
        assert second["drone"] is None
        assert second["backend_id"] == first["backend_id"]
        assert second["token"] != first["token"]
        assert second["secret_token"] != first["secret_token"]


async def test_static_tokens_are_shared_and_have_no_secret(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        config = {**IMAGE, "use_static_token": True, "subdomain": "sub"}
        first = await api.connect(key={"name": "k"}, spawn_config=config)
        second = await api.connect(key={"name": "k"})
        assert first["token"] == second["token"]
        assert first["token"].startswith("s.")
        assert first["secret_token"] is second["secret_token"] is None
        assert first["url"] == second["url"] == f"http://sub.{CLUSTER}/{first['token']}/"
        action = await drone.receive("Action")
        assert action["action"]["Spawn"]["static_token"] == first["token"]


async def test_identity_with_a_static_token_is_refused_by_field(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        config = {**IMAGE, "use_static_token": True}
        for identity in ({"user": "ann"}, {"auth": {"role": "x"}}):
            assert await api.refused(key={"name": "k"}, spawn_config=config, **identity) == (400, "Other")
        await api.connect(key={"name": "k"}, spawn_config=config, user=None, auth={})
        # Also of a backend that runs already, whose request need not say what kind of token it has.
        assert await api.refused(key={"name": "k"}, user="ann") == (400, "Other")
        assert (await api.connect(key={"name": "k"}))["spawned"] is False


async def test_every_refusal_has_its_kind_and_status(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        assert await api.refused(spawn_config=IMAGE) == (500, "NoDroneAvailable")
        async with fake_drone(api.base):
            await api.connect(key={"name": "k", "tag": "a"}, spawn_config=IMAGE)
            assert await api.refused(key={"name": "k", "tag": "b"}) == (409, "KeyHeld")
            assert await api.refused(key={"name": "other"}) == (409, "KeyUnheldNoSpawnConfig")
            assert await api.refused() == (409, "KeyUnheldNoSpawnConfig")
            assert await api.refused(spawn_config={**IMAGE, "pool": "gpu"}) == (500, "NoDroneAvailable")
            assert await api.refused(spawn_config={**IMAGE, "cluster": "else.where"}) == (500, "NoDroneAvailable")
            assert await api.refused(spawn_config={**IMAGE, "max_idle_seconds": -1}) == (400, "Other")


async def test_request_without_a_cluster_is_refused(postgres_url: str) -> None:
    async with controller_api(postgres_url, default_cluster=None) as api:
        assert await api.refused(spawn_config=IMAGE) == (400, "NoClusterProvided")


async def test_existing_backend_id_is_a_conflict(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        await api.connect(spawn_config={**IMAGE, "id": "chosen"})
        status, body = await api.call("POST", "/ctrl/connect", {"spawn_config": {**IMAGE, "id": "chosen"}})
        assert status == 409
        assert "'chosen' exists already" in body["message"]


async def test_draining_or_silent_drone_gets_no_backend(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        await execute(postgres_url, "UPDATE drone SET draining = true")
        assert await api.refused(spawn_config=IMAGE) == (500, "NoDroneAvailable")
        await execute(postgres_url, "UPDATE drone SET draining = false, last_heartbeat = now() - interval '46 seconds'")
        assert await api.refused(spawn_config=IMAGE) == (500, "NoDroneAvailable")


async def test_no_backend_is_stored_for_a_drone_that_drains_since_it_was_read(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base, "dr-a"), fake_drone(api.base, "dr-b"):
        # The controller knows both from now on.
        assert {(await api.connect(spawn_config=IMAGE))["drone"] for _ in range(2)} == {"dr-a", "dr-b"}
        for name in ("dr-a", "dr-b"):
            await execute(postgres_url, f"UPDATE drone SET draining = id = (SELECT id FROM node WHERE name = '{name}')")
            chosen = {(await api.connect(spawn_config=IMAGE))["drone"] for _ in range(4)}
            assert chosen == {"dr-a", "dr-b"} - {name}
        await execute(postgres_url, "UPDATE drone SET draining = true")
        assert await api.refused(spawn_config=IMAGE) == (500, "NoDroneAvailable")


async def test_drone_with_fewer_backends_is_chosen(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base, "dr-a"),
        fake_drone(api.base, "dr-b"),
    ):
        chosen = [(await api.connect(spawn_config=IMAGE))["drone"] for _ in range(10)]
        assert chosen.count("dr-a") == chosen.count("dr-b") == 5


@pytest.mark.parametrize("header", ["Accept", "X-That-The-Lane-Leaves-To-Aiohttp"])
async def test_expired_key_is_acquired_with_a_higher_fencing_token(postgres_url: str, header: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        first = await api.connect(key={"name": "k"}, spawn_config=IMAGE)
        token = (await drone.receive("Action"))["action"]["Spawn"]["key"]["token"]
        await execute(postgres_url, "UPDATE backend_key SET expires_at = now() - interval '1 second'")
        request = {"key": {"name": "k"}, "spawn_config": IMAGE}
        status, second = await api.call("POST", "/ctrl/connect", request, headers={header: "*/*"})
        assert status == 200
        assert second["spawned"] is True
        assert second["backend_id"] != first["backend_id"]
        assert (await drone.receive("Action"))["action"]["Spawn"]["key"]["token"] > token


async def test_fencing_tokens_rise_even_if_the_database_clock_steps_back(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, obedient_drone(api.base):
        first = await api.connect(key={"name": "k"}, spawn_config=IMAGE)
        far_future = 2**50
        # As if the first token had been given when the clock was far ahead.
        await execute(postgres_url, "UPDATE plane_key_fencing SET fencing_token = $1", far_future)
        await api.call("POST", f"/ctrl/b/{first['backend_id']}/hard-terminate")
        while (await api.call("GET", f"/pub/b/{first['backend_id']}/status"))[1]["status"] != "terminated":
            await asyncio.sleep(0.02)
        await api.connect(key={"name": "k"}, spawn_config=IMAGE)
        rows = await execute(postgres_url, "SELECT fencing_token FROM backend_key")
        assert [row["fencing_token"] for row in rows] == [far_future + 1]


async def test_large_executable_reaches_the_drone_at_once(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        await asyncio.sleep(0.2)  # the first poll for pending actions is over; the next is seconds away
        env = {"LARGE": "x" * 100_000}
        await api.connect(spawn_config={"executable": {"image": "i", "env": env}})
        async with asyncio.timeout(3):
            action = await drone.receive("Action")
        assert action["action"]["Spawn"]["executable"]["env"] == env


@pytest.mark.parametrize("controllers", [1, 2])
async def test_concurrent_connects_for_a_new_key_spawn_one_backend(postgres_url: str, controllers: int) -> None:
    async with (
        controller_api(postgres_url) as one,
        controller_api(postgres_url) as two,
        obedient_drone(one.base) as spawned,
    ):
        apis = [one, two][:controllers]
        answers = await asyncio.gather(
            *(apis[n % controllers].connect(key={"name": "k"}, spawn_config=IMAGE) for n in range(100))
        )
        assert len({answer["backend_id"] for answer in answers}) == 1
        assert len({answer["token"] for answer in answers}) == 100
        assert sum(answer["spawned"] for answer in answers) == 1
        await asyncio.sleep(0.2)
        assert len(spawned) == 1


async def test_invalid_bodies_are_refused(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:

        async def post(body: str, content_type: str = "application/json") -> tuple[int, Any]:
            headers = {"Content-Type": content_type}
            return await api.call("POST", "/ctrl/connect", data=io.BytesIO(body.encode()), headers=headers)

        assert (await post("{nope"))[0] == 400
        assert (await post("{}", "text/plain"))[0] == 415
        status, body = await post('{"spawn_config": {"cluster": "c"}}')
        assert status == 422
        assert body["message"].endswith("missing required field `executable` - at $.spawn_config")
        assert (await post('{"key": {"name": "\\ud800"}}'))[0] == 400
        assert (await post("[" * 100_000))[0] in (400, 422)
        assert (await post('"' + "x" * 2_000_000 + '"'))[0] == 413
        assert (await post('{"key": {"name": "a\\u0000b"}}'))[0] == 400


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"max_idle_seconds": -1}, "spawn_config.max_idle_seconds"),
        ({"lifetime_limit_seconds": -1}, "spawn_config.lifetime_limit_seconds"),
        ({"lifetime_limit_seconds": 0}, "spawn_config.lifetime_limit_seconds"),
        ({"lifetime_limit_seconds": 2**31 - 1}, None),
        (
            {"executable": {"image": "i", "resource_limits": {"memory_limit_bytes": -1}}},
            "spawn_config.executable.resource_limits.memory_limit_bytes",
        ),
    ],
)
async def test_absurd_limits_are_refused_by_field(postgres_url: str, limits: dict[str, Any], field: str | None) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        status, body = await api.call("POST", "/ctrl/connect", {"spawn_config": {**IMAGE, **limits}})
        assert (status == 200) if field is None else (status == 400 and body["message"].startswith(f"{field}: "))


# A key that always changes hands just then: as if there were another controller that is a little faster each time.
SOMEBODY_ELSE_TAKES_IT = """
CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER vanish BEFORE {what} ON backend_key FOR EACH ROW EXECUTE FUNCTION vanish();
"""


async def test_race_for_a_key_is_lost_after_three_attempts(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(SOMEBODY_ELSE_TAKES_IT.format(what="INSERT"))
        assert await api.refused(key={"name": "k"}, spawn_config=IMAGE) == (500, "FailedToAcquireKey")
        assert await connection.fetchval("SELECT count(*) FROM backend") == 0
        await connection.execute("DROP FUNCTION vanish CASCADE")
        await api.connect(key={"name": "k"}, spawn_config=IMAGE)
        await connection.execute("UPDATE backend_key SET expires_at = now()")
        await connection.execute(SOMEBODY_ELSE_TAKES_IT.format(what="DELETE"))
        assert await api.refused(key={"name": "k"}, spawn_config=IMAGE) == (409, "FailedToRemoveKey")
        await connection.close()


async def test_id_of_an_error_is_logged(postgres_url: str) -> None:
    with capture_logs() as logs:
        async with controller_api(postgres_url) as api:
            _, body = await api.call("POST", "/ctrl/connect", {})
    assert [entry["error_id"] for entry in logs if entry["event"] == "request refused"] == [body["id"]]
