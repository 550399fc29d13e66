"""Draining, stopping drones and revocation on real controllers."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import asyncpg
from structlog.testing import capture_logs

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, FakeNode, fake_drone, fake_proxy

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}
READY = {"status": "ready", "address": "127.0.0.1:4567"}


async def drain(api: Api, drone: str, order: str = "drain") -> tuple[int, Any]:
    return await api.call("POST", f"/ctrl/c/{CLUSTER}/d/{drone}/{order}")


async def drone_state(api: Api) -> dict[str, Any]:
    _, state = await api.call("GET", f"/ctrl/c/{CLUSTER}/state")
    drone: dict[str, Any] = state["drones"][0]
    return drone


async def until_ready_is(api: Api, wanted: bool) -> None:
    async with asyncio.timeout(10):
        while (await drone_state(api))["ready"] is not wanted:
            await asyncio.sleep(0.02)


async def test_draining_can_be_undone(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        assert await drain(api, "dr-fake") == (200, {"updated": True})
        assert await drain(api, "dr-fake") == (200, {"updated": False})
        assert (await drone_state(api))["draining"] is True
        assert await api.refused(spawn_config=IMAGE) == (500, "NoDroneAvailable")
        assert await drain(api, "dr-fake", "undrain") == (200, {"updated": True})
        assert await drain(api, "dr-fake", "undrain") == (200, {"updated": False})
        await api.connect(spawn_config=IMAGE)
        status, body = await drain(api, "dr-unknown")
        assert (status, body["kind"], body["message"]) == (404, "NotFound", "Drone does not exist")


async def test_stopping_drone_gets_no_backends_until_it_reconnects(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        async with fake_drone(api.base) as drone:
            assert "stopping" in drone.controller["extensions"]
            await drone.send("Stopping", {})
            await until_ready_is(api, False)
            assert await api.refused(spawn_config=IMAGE) == (500, "NoDroneAvailable")
        async with fake_drone(api.base):
            await until_ready_is(api, True)
            await api.connect(spawn_config=IMAGE)


async def ready_backend(api: Api, drone: FakeNode, user: str) -> dict[str, Any]:
    answer = await api.connect(key={"name": "k"}, spawn_config=IMAGE, user=user)
    content = {"event_id": 1, "backend_id": answer["backend_id"], "state": READY, "timestamp": 1}
    await drone.send("BackendEvent", content)
    await drone.receive("AckEvent")
    return answer


async def route(proxy: FakeNode, token: str) -> Any:
    await proxy.send("RouteInfoRequest", {"token": token})
    return (await proxy.receive("RouteInfoResponse"))["route_info"]


async def test_revocation_works_on_both_paths_and_reaches_every_proxy(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        controller_api(postgres_url) as other,
        fake_drone(api.base) as drone,
        fake_proxy(api.base, "px-one", extensions=["revocation"]) as near,
        fake_proxy(other.base, "px-two", extensions=["revocation", "of the future"]) as far,
        fake_proxy(other.base, "px-original") as original,
    ):
        anns = await ready_backend(api, drone, "ann")
        bobs = await api.connect(key={"name": "k"}, user="bob")
        again = await api.connect(key={"name": "k"}, user="bob")
        backend = anns["backend_id"]
        assert (await route(near, bobs["token"]))["user"] == "bob"
        done = await api.call("POST", "/ctrl/b/revoke", {"backend_id": backend, "user": "bob"})
        assert done == (200, "Token revoked successfully")
        for proxy in (near, far):
            told = await proxy.receive("TokensRevoked")
            assert told["backend"] == backend
            assert sorted(told["tokens"]) == sorted([bobs["token"], again["token"]])
            assert await route(proxy, bobs["token"]) is None
            assert (await route(proxy, anns["token"]))["user"] == "ann"
        done = await api.call("POST", "/ctrl/revoke", {"backend_id": backend, "user": "ann"})
        assert done == (200, "Token revoked successfully")
        assert (await near.receive("TokensRevoked"))["tokens"] == [anns["token"]]
        # A proxy that knows nothing of revocations forgets the whole backend, and asks again.
        assert await original.receive("BackendRemoved") == {"backend": backend}
        # Tokens that have expired are deleted, but what was opened with them is not closed.
        done = await api.call("POST", "/ctrl/revoke", {"backend_id": backend, "user": "eve"})
        assert done == (200, "Token revoked successfully")
        assert await near.receive("TokensRevoked") == {"backend": backend, "tokens": [], "user": "eve"}
        # A proxy that was without a controller meanwhile has missed them.
        async with fake_proxy(other.base, "px-back", extensions=["revocation"]) as back:
            repeated = [await back.receive("TokensRevoked") for _ in range(3)]
            assert [(each["user"], len(each["tokens"])) for each in repeated] == [("bob", 2), ("ann", 1), ("eve", 0)]
        # Nothing to revoke is no error, and tells nobody.
        done = await api.call("POST", "/ctrl/revoke", {"backend_id": "unknown", "user": "ann"})
        assert done == (200, "Token revoked successfully")
        assert await route(original, anns["token"]) is None
        assert not original.has_received("TokensRevoked")


async def test_a_revocation_that_cannot_be_decoded_disturbs_no_proxy(postgres_url: str) -> None:
    """As a later version might write one."""
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        backend = (await api.connect(spawn_config=IMAGE, user="ann"))["backend_id"]
        sql = await asyncpg.connect(postgres_url)
        with capture_logs() as logs:
            await sql.execute("""SELECT plane_emit('tokens_revoked', $1, '{"tokens": 1}')""", backend)
            async with fake_proxy(api.base, extensions=["revocation"]) as proxy:
                await api.call("POST", "/ctrl/b/revoke", {"backend_id": backend, "user": "ann"})
                assert (await proxy.receive("TokensRevoked"))["backend"] == backend
        await sql.close()
        assert [entry["backend"] for entry in logs if entry["event"] == "revocation not decoded"] == [backend]


async def test_token_revoked_during_its_lookup_has_no_route(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base) as drone,
        fake_proxy(api.base, extensions=["revocation"]) as proxy,
    ):
        answer = await api.connect(spawn_config=IMAGE, user="ann")
        await proxy.send("RouteInfoRequest", {"token": answer["token"]})
        await api.call("POST", "/ctrl/b/revoke", {"backend_id": answer["backend_id"], "user": "ann"})
        await proxy.receive("TokensRevoked")
        content = {"event_id": 1, "backend_id": answer["backend_id"], "state": READY, "timestamp": 1}
        await drone.send("BackendEvent", content)
        assert (await proxy.receive("RouteInfoResponse"))["route_info"] is None


async def test_every_endpoint_is_described(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        status, document = await api.call("GET", "/ctrl/openapi.json")
        assert status == 200
        assert document["openapi"] == "3.1.0"
        connect = document["paths"]["/ctrl/connect"]["post"]
        assert connect["requestBody"]["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/ConnectRequest"
        }
        assert {"200", "400", "409", "413", "415", "422", "500"} <= set(connect["responses"])
        for path, operations in document["paths"].items():
            for method in operations:
                url = api.base + path.replace("{", "").replace("}", "")
                async with api.http.request(method, url, timeout=aiohttp.ClientTimeout(total=10)) as answer:
                    assert answer.status != 405, path
                    assert answer.status != 404 or answer.content_type == "application/json", path
