"""Node sockets of a real controller: messages are stored and get their responses, invalid ones are skipped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest
from structlog.testing import capture_logs

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, VERSION, fake_drone, fake_proxy, obedient_drone
from harness.sql import END_OTHER_SESSIONS, WAITING_FOR_A_LOCK, WAITING_FOR_THIS_SESSION
from plane.database import nodes

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}
READY = {"status": "ready", "address": "127.0.0.1:4567"}


@asynccontextmanager
async def fake_node_of_a_stopped_controller(url: str) -> AsyncIterator[tuple[Any, str]]:
    async with AsyncExitStack() as outer:
        async with controller_api(url) as api:
            drone = await outer.enter_async_context(fake_drone(api.base))
        yield drone, url


async def status_of(api: Api, backend: str) -> dict[str, Any]:
    status, body = await api.call("GET", f"/pub/b/{backend}/status")
    assert status == 200
    entry: dict[str, Any] = body
    return entry


async def until_status(api: Api, backend: str, wanted: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while (entry := await status_of(api, backend))["status"] != wanted:
            await asyncio.sleep(0.02)
    return entry


def event(event_id: int, backend: str, state: dict[str, Any]) -> dict[str, Any]:
    return {"event_id": event_id, "backend_id": backend, "state": state, "timestamp": 1}


async def test_events_are_acknowledged_and_only_rise(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        await drone.send("BackendEvent", event(1, backend, READY))
        assert await drone.receive("AckEvent") == {"event_id": 1}
        assert (await status_of(api, backend))["status"] == "ready"
        await drone.send("BackendEvent", event(2, backend, {"status": "loading"}))
        assert await drone.receive("AckEvent") == {"event_id": 2}
        assert (await status_of(api, backend))["status"] == "ready"
        await drone.send("BackendEvent", event(3, "unknown", {"status": "loading"}))
        assert await drone.receive("AckEvent") == {"event_id": 3}


@pytest.mark.parametrize(
    ("table", "said", "answer"),
    [("backend", "BackendEvent", "AckEvent"), ("backend_key", "RenewKey", "RenewKeyResponse")],
)
async def test_acknowledged_events_are_stored(postgres_url: str, table: str, said: str, answer: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base) as drone,
        asyncpg.create_pool(postgres_url, min_size=2, max_size=2) as pool,
        pool.acquire() as sql,
        pool.acquire() as look,
    ):
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        content = event(1, backend, READY) if said == "BackendEvent" else {"backend": backend, "local_time": 1}
        async with sql.transaction():
            await sql.execute(f"SELECT 1 FROM {table} WHERE id = $1 FOR UPDATE", backend)
            await drone.send(said, content)
            heard = asyncio.create_task(drone.receive(answer))
            async with asyncio.timeout(10):
                while not await look.fetchval(WAITING_FOR_A_LOCK):
                    await asyncio.sleep(0.02)
            # Had it been answered before it was written, it would be heard by now.
            await asyncio.sleep(0.1)
            assert not heard.done()
        async with asyncio.timeout(10):
            await heard


async def test_message_of_a_terminated_backend_is_public(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["backend_id"]
        ended = {"status": "terminated", "last_status": "loading", "exit_code": 3, "message": "no such image"}
        await drone.send("BackendEvent", event(1, backend, ended))
        await drone.receive("AckEvent")
        entry = await status_of(api, backend)
        assert entry["message"] == "no such image"
        assert entry["exit_error"] is True
        # The key is free again.
        assert await api.refused(key={"name": "k"}) == (409, "KeyUnheldNoSpawnConfig")


async def test_renewal_extends_the_lease_from_the_drone_time(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        await drone.send("RenewKey", {"backend": backend, "local_time": 5_000_000})
        assert await drone.receive("RenewKeyResponse") == {
            "backend": backend,
            "deadlines": {
                "renew_at": 5_030_000,
                "soft_terminate_at": 5_040_000,
                "hard_terminate_at": 5_050_000,
            },
        }


async def test_failed_renewal_gets_a_null_response(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        connection = await asyncpg.connect(postgres_url)
        await connection.execute("UPDATE backend_key SET allow_renew = false")
        await connection.close()
        for name in (backend, "unknown"):
            await drone.send("RenewKey", {"backend": name, "local_time": 5_000_000})
            assert await drone.receive("RenewKeyResponse") == {"backend": name, "deadlines": None}


async def test_actions_are_sent_until_acknowledged_even_across_connections(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        async with fake_drone(api.base) as drone:
            await api.connect(spawn_config=IMAGE)
            action = await drone.receive("Action")
        async with fake_drone(api.base) as drone:
            assert await drone.receive("Action") == action
            await drone.send("AckAction", {"action_id": action["action_id"]})
            connection = await asyncpg.connect(postgres_url)
            async with asyncio.timeout(10):
                while await connection.fetchval("SELECT count(*) FROM backend_action WHERE acked_at IS NULL"):
                    await asyncio.sleep(0.02)
            await connection.close()
        async with fake_drone(api.base) as drone:
            # The next action is another backend's.
            other = (await api.connect(spawn_config=IMAGE))["backend_id"]
            assert (await drone.receive("Action"))["backend_id"] == other


async def test_a_replay_of_events_sends_no_action_that_was_acknowledged(postgres_url: str) -> None:
    sql = await asyncpg.connect(postgres_url)
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        await api.connect(spawn_config=IMAGE)
        await drone.send("AckAction", {"action_id": (await drone.receive("Action"))["action_id"]})
        async with asyncio.timeout(10):
            while await sql.fetchval("SELECT count(*) FROM backend_action WHERE acked_at IS NULL"):
                await asyncio.sleep(0.02)
    # A controller that was started since has not seen the event, and reads it again after a lost connection.
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        await sql.execute(END_OTHER_SESSIONS)
        for _ in range(2):
            new = (await api.connect_once_granted(spawn_config=IMAGE))["backend_id"]
            assert (await drone.receive("Action"))["backend_id"] == new
    await sql.close()


async def test_more_than_fifty_pending_actions_arrive_in_order(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        async with fake_drone(api.base):
            backends = [(await api.connect(spawn_config=IMAGE))["backend_id"] for _ in range(120)]
            await api.call("POST", f"/ctrl/b/{backends[0]}/soft-terminate")
        async with fake_drone(api.base) as drone:
            heard = [await drone.receive("Action") for _ in range(121)]
    assert [action["backend_id"] for action in heard] == [*backends, backends[0]]
    assert "Terminate" in heard[-1]["action"]


async def test_unknown_action_does_not_block_the_others(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        async with fake_drone(api.base) as drone:
            sql = await asyncpg.connect(postgres_url)
            await sql.execute(
                "WITH stored AS (INSERT INTO backend_action (id, drone_id, action)"
                " SELECT 'ak-later', id, '{\"action\": {\"Freeze\": 1}}' FROM drone RETURNING *)"
                " SELECT plane_emit('backend_action', drone_id::text, action) FROM stored"
            )
            await sql.close()
            first = (await api.connect(spawn_config=IMAGE))["backend_id"]
            assert (await drone.receive("Action"))["backend_id"] == first
        async with fake_drone(api.base) as drone:
            assert (await drone.receive("Action"))["backend_id"] == first


async def test_terminations_reach_the_drone(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        backend = (await api.connect(spawn_config=IMAGE))["backend_id"]
        await drone.receive("Action")
        for kind in ("soft", "hard"):
            assert await api.call("POST", f"/ctrl/b/{backend}/{kind}-terminate") == (200, None)
            action = await drone.receive("Action")
            assert action["action"] == {"Terminate": {"kind": kind, "reason": "external"}}
        assert (await api.call("POST", "/ctrl/b/unknown/soft-terminate"))[0] == 404
        # The documented spelling with the cluster.
        assert (await api.call("POST", f"/ctrl/c/{CLUSTER}/b/{backend}/soft-terminate"))[0] == 200


async def test_idle_backends_are_swept_once(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        idle = (await api.connect(spawn_config={**IMAGE, "max_idle_seconds": 0}))["backend_id"]
        old = (await api.connect(spawn_config={**IMAGE, "lifetime_limit_seconds": 1}))["backend_id"]
        await api.connect(spawn_config={**IMAGE, "max_idle_seconds": 100})
        await api.connect(spawn_config=IMAGE)
        for _ in range(4):
            await drone.receive("Action")
        swept = [await drone.receive("Action") for _ in range(2)]
        assert {action["backend_id"] for action in swept} == {idle, old}
        assert all(a["action"] == {"Terminate": {"kind": "soft", "reason": "swept"}} for a in swept)
        # The next sweep terminates a backend that has become idle since, and none of these again.
        later = (await api.connect(spawn_config={**IMAGE, "max_idle_seconds": 0}))["backend_id"]
        assert [(await drone.receive("Action"))["backend_id"] for _ in range(2)] == [later, later]


async def test_tokens_have_routes(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base) as drone,
        fake_proxy(api.base) as proxy,
    ):
        answer = await api.connect(spawn_config=IMAGE, user="ann", auth={"n": 1})
        await proxy.send("RouteInfoRequest", {"token": answer["token"]})
        # It waits while the backend starts, and others do not wait for it.
        await proxy.send("RouteInfoRequest", {"token": "unknown"})
        assert await proxy.receive("RouteInfoResponse") == {"token": "unknown", "route_info": None}
        await proxy.send("RouteInfoRequest", {"token": "unknown too"})
        assert (await proxy.receive("RouteInfoResponse"))["token"] == "unknown too"
        await drone.send("BackendEvent", event(1, answer["backend_id"], READY))
        response = await proxy.receive("RouteInfoResponse")
        assert 3_590_000 < response["route_info"].pop("expires_in_ms") <= 3_600_000
        assert response == {
            "token": answer["token"],
            "route_info": {
                "backend_id": answer["backend_id"],
                "address": "127.0.0.1:4567",
                "secret_token": answer["secret_token"],
                "cluster": CLUSTER,
                "user": "ann",
                "user_data": {"n": 1},
                "subdomain": None,
            },
        }


async def test_route_lookup_ends_with_its_backend(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base) as drone,
        fake_proxy(api.base) as proxy,
    ):
        answer = await api.connect(spawn_config=IMAGE)
        await proxy.send("RouteInfoRequest", {"token": answer["token"]})
        ended = {"status": "terminated", "last_status": "loading"}
        await drone.send("BackendEvent", event(1, answer["backend_id"], ended))
        assert await proxy.receive("RouteInfoResponse") == {"token": answer["token"], "route_info": None}
        assert await proxy.receive("BackendRemoved") == {"backend": answer["backend_id"]}


async def test_expired_token_has_no_route(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base) as drone,
        fake_proxy(api.base) as proxy,
    ):
        answer = await api.connect(spawn_config=IMAGE)
        await drone.send("BackendEvent", event(1, answer["backend_id"], READY))
        await drone.receive("AckEvent")
        connection = await asyncpg.connect(postgres_url)
        await connection.execute("UPDATE token SET expiration_time = now()")
        await connection.close()
        await proxy.send("RouteInfoRequest", {"token": answer["token"]})
        assert await proxy.receive("RouteInfoResponse") == {"token": answer["token"], "route_info": None}


async def test_static_tokens_have_routes_without_user_and_secret(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base) as drone,
        fake_proxy(api.base) as proxy,
    ):
        answer = await api.connect(spawn_config={**IMAGE, "use_static_token": True})
        await drone.send("BackendEvent", event(1, answer["backend_id"], READY))
        await drone.receive("AckEvent")
        await proxy.send("RouteInfoRequest", {"token": answer["token"]})
        route = (await proxy.receive("RouteInfoResponse"))["route_info"]
        assert route["secret_token"] == ""
        assert route["user"] is route["user_data"] is None
        assert "expires_in_ms" not in route


@pytest.mark.parametrize(
    "options",
    [{}, {"rewrite_prefix": False, "token_in_cookie": False}, {"rewrite_prefix": True}, {"token_in_cookie": True}],
)
@pytest.mark.parametrize("static", [False, True])
async def test_route_has_only_the_options_that_are_enabled(
    postgres_url: str, options: dict[str, bool], static: bool
) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base) as drone,
        fake_proxy(api.base) as proxy,
    ):
        config = {**IMAGE, "use_static_token": static, "subdomain": "sub", **options}
        answer = await api.connect(spawn_config=config, key={"name": "k"})
        await drone.send("BackendEvent", event(1, answer["backend_id"], READY))
        await drone.receive("AckEvent")
        # Also by a later connect, whose spawn config is not used.
        again = await api.connect(spawn_config=IMAGE, key={"name": "k"})
        for token in (answer["token"], again["token"]):
            await proxy.send("RouteInfoRequest", {"token": token})
            route = (await proxy.receive("RouteInfoResponse"))["route_info"]
            said = {name: route[name] for name in ("rewrite_prefix", "token_in_cookie") if name in route}
            assert said == {name: True for name, on in options.items() if on}


async def test_keepalive_of_an_unknown_backend_gets_a_removal(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_proxy(api.base) as proxy:
        await proxy.send("KeepAlive", "unknown")
        assert await proxy.receive("BackendRemoved") == {"backend": "unknown"}


async def test_keepalive_prevents_the_sweep(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        obedient_drone(api.base),
        fake_proxy(api.base) as proxy,
    ):
        backend = (await api.connect(spawn_config={**IMAGE, "max_idle_seconds": 2}))["backend_id"]
        for _ in range(8):
            await proxy.send("KeepAlive", backend)
            await asyncio.sleep(1)
        assert (await status_of(api, backend))["status"] == "ready"
        assert (await until_status(api, backend, "terminated"))["termination_reason"] == "swept"


@pytest.mark.parametrize("late_s", [0.0, 0.3])
async def test_newer_node_of_the_same_name_wins(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, late_s: float
) -> None:
    register = nodes.register
    waits = [late_s]

    async def register_the_first_late(*args: Any) -> nodes.Registration:
        await asyncio.sleep(waits.pop() if waits else 0)
        return await register(*args)

    monkeypatch.setattr(nodes, "register", register_the_first_late)
    async with (
        controller_api(postgres_url) as api,
        fake_proxy(api.base) as older,
        fake_proxy(api.base) as newer,
    ):
        async with asyncio.timeout(5):
            assert (await older.ws.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        await newer.send("KeepAlive", "unknown")
        await newer.receive("BackendRemoved")
        state = (await api.call("GET", f"/ctrl/c/{CLUSTER}/state"))[1]
        assert [proxy["name"] for proxy in state["proxies"]] == [{"Proxy": "px-fake"}]


@pytest.mark.parametrize(
    "first",
    [
        "",
        "{",
        "[]",
        '{"name": "dr-x"}',
        json.dumps({"version": VERSION, "name": "px-x"}),
        json.dumps({"version": VERSION, "name": "dr-X!"}),
    ],
)
async def test_invalid_handshake_closes_the_socket(postgres_url: str, first: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        api.http.ws_connect(f"{api.base}/ctrl/c/{CLUSTER}/drone-socket") as ws,
    ):
        await ws.send_str(first)
        async with asyncio.timeout(5):
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        assert ws.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"Unknown": 1}',
        '{"Heartbeat": {}}',
        '{"Heartbeat": {"local_time": "x"}}',
        '{"KeepAlive": "x", "Heartbeat": {"local_time": 1}}',
        "[" * 50_000,
    ],
)
async def test_invalid_messages_are_skipped(postgres_url: str, garbage: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone:
        await drone.ws.send_str(garbage)
        await drone.ws.send_bytes(b"\xff\xfe")
        await drone.send("RenewKey", {"backend": "any", "local_time": 1})
        assert (await drone.receive("RenewKeyResponse"))["deadlines"] is None


async def test_invalid_messages_do_not_fill_the_log(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        with capture_logs() as logs:
            async with fake_drone(api.base) as drone:
                for _ in range(100):
                    await drone.ws.send_str("nonsense")
            async with asyncio.timeout(10):
                while sum(entry["event"] == "message not decoded" for entry in logs) < 2:
                    await asyncio.sleep(0.05)
        told = [(entry["event"], entry["count"]) for entry in logs if "not decoded" in entry["event"]]
        assert told == [("message not decoded", 1), ("message not decoded", 99)]


async def test_malformed_clusters_are_refused_at_the_socket(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        status, body = await api.call("GET", "/ctrl/c/bad%20name/state")
        assert (status, body["kind"]) == (400, "InvalidClusterName")
        for path in ("bad%20name/drone-socket", "bad:99999/proxy-socket"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await api.http.ws_connect(f"{api.base}/ctrl/c/{path}")
            assert caught.value.status == 400


async def test_stopping_controller_disconnects_its_nodes(postgres_url: str) -> None:
    async with fake_node_of_a_stopped_controller(postgres_url) as (drone, url):
        async with asyncio.timeout(5):
            assert (await drone.ws.receive()).data == aiohttp.WSCloseCode.GOING_AWAY
        connection = await asyncpg.connect(url)
        try:
            assert await connection.fetchval("SELECT is_online FROM controller") is False
        finally:
            await connection.close()


async def test_request_in_flight_gets_its_response_while_the_controller_stops(postgres_url: str) -> None:
    async with AsyncExitStack() as outer:
        http = await outer.enter_async_context(aiohttp.ClientSession())
        async with controller_api(postgres_url) as api:
            await outer.enter_async_context(fake_drone(api.base))
            connection = await asyncpg.connect(postgres_url)
            holding = connection.transaction()
            await holding.start()
            await connection.execute("LOCK TABLE backend IN EXCLUSIVE MODE")
            body = {"key": {"name": "k"}, "spawn_config": IMAGE}
            asking = asyncio.create_task(http.post(f"{api.base}/ctrl/connect", json=body))
            async with asyncio.timeout(10):
                while not await connection.fetchval(WAITING_FOR_THIS_SESSION):
                    await asyncio.sleep(0.01)
            releasing = asyncio.get_running_loop().call_later(0.5, lambda: asyncio.ensure_future(holding.rollback()))
        async with asyncio.timeout(10), await asking as answer:
            assert answer.status == 200
            assert (await answer.json())["spawned"] is True
        releasing.cancel()
        await connection.close()
