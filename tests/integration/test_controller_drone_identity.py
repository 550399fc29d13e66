"""Registration of drones: who gets a name, and which of a drone's messages count after it started over."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import asyncpg
import pytest
from structlog.testing import capture_logs

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, FakeNode, fake_drone, obedient_drone, silent_drone
from plane.protocol.drone_messages import MessageFromDrone, MessageToDrone
from plane.protocol.handshake import DroneIdentity
from plane.transport.controller_url import ControllerUrl
from plane.transport.node_socket import NodeConnector, NodeSocket

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}
FIRST = {"instance": "i-1", "clock": "c-1", "boot_id": "b-1", "machine_id": "m-1"}
CLONE = {"instance": "i-2", "clock": "c-2", "boot_id": "b-2", "machine_id": "m-1"}
RESTARTED = FIRST | {"instance": "i-3", "clock": "c-3"}
REFUSED = "another drone named dr-fake is connected; give each its own --name, or stop that one"


async def closed_with(node: FakeNode) -> tuple[int, str]:
    async with asyncio.timeout(10):
        while (message := await node.ws.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
    assert message.type is aiohttp.WSMsgType.CLOSE
    return message.data, message.extra or ""


async def registered_at(url: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchrow("SELECT node.*, drone.* FROM node JOIN drone ON drone.id = node.id")
    finally:
        await connection.close()


def state_event(event_id: int, backend: str, state: dict[str, Any]) -> dict[str, Any]:
    return {"event_id": event_id, "backend_id": backend, "state": state, "timestamp": event_id}


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def until_listed(api: Api, wanted: bool) -> None:
    async with asyncio.timeout(10):
        while bool((await api.call("GET", f"/ctrl/c/{CLUSTER}/state"))[1]["drones"]) is not wanted:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("at", ["the same controller", "another controller"])
async def test_second_drone_of_the_same_name_is_refused(postgres_url: str, at: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        controller_api(postgres_url) as other,
        fake_drone(api.base, identity=FIRST) as first,
    ):
        before = await registered_at(postgres_url)
        with capture_logs() as logs:
            for _ in range(2):
                async with silent_drone((api if at == "the same controller" else other).base, identity=CLONE) as clone:
                    assert await closed_with(clone) == (1008, REFUSED)
        assert [entry["log_level"] for entry in logs if entry["event"] == "node refused"] == ["warning"] * 2
        assert await registered_at(postgres_url) == before
        backend = (await other.connect(key={"name": "k"}, spawn_config=IMAGE))["backend_id"]
        action = await first.receive("Action")
        assert action["backend_id"] == backend
        # Another drone of this name would refuse it, whatever its clock reads.
        assert action["action"]["Spawn"]["clock"] == FIRST["clock"]


async def test_restarted_drone_gets_its_name_back_at_once(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        async with fake_drone(api.base, identity=FIRST), silent_drone(api.base, identity=RESTARTED) as early:
            # Its former connection still stands.
            assert (await closed_with(early))[0] == 1008
        await until_listed(api, False)
        async with fake_drone(api.base, identity=RESTARTED):
            row = await registered_at(postgres_url)
            assert (row["plane_instance"], row["plane_clock"]) == ("i-3", "c-3")
        await until_listed(api, False)
        async with silent_drone(api.base, identity=CLONE) as clone:
            assert (await closed_with(clone))[0] == 1008
        # A drone of Plane 0.5.5 has no identity and takes the name; a newer connection wins over it.
        async with fake_drone(api.base), fake_drone(api.base, identity=CLONE):
            assert (await registered_at(postgres_url))["plane_instance"] == "i-2"


async def test_name_of_an_unhealthy_drone_is_free(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base, identity=FIRST):
        connection = await asyncpg.connect(postgres_url)
        await connection.execute("UPDATE drone SET last_heartbeat = now() - interval '46 seconds'")
        await connection.close()
        async with fake_drone(api.base, identity=CLONE):
            assert (await registered_at(postgres_url))["plane_instance"] == "i-2"


async def test_another_drone_of_the_name_does_not_free_the_keys_of_the_former_one(postgres_url: str) -> None:
    """A drone that is cut off keeps its processes for the rest of their leases, and nobody else can end them."""
    request = {"key": {"name": "k"}, "spawn_config": IMAGE}
    async with (
        controller_api(postgres_url) as api,
        controller_api(postgres_url) as other,
        fake_drone(other.base, identity=FIRST) as first,
    ):
        backend = (await api.connect(**request))["backend_id"]
        await first.receive("Action")
        await first.send("BackendEvent", state_event(1, backend, {"status": "ready", "address": "127.0.0.1:1"}))
        await first.receive("AckEvent")
        await execute(postgres_url, "UPDATE drone SET last_heartbeat = now() - interval '46 seconds'")
        async with fake_drone(api.base, identity=CLONE) as clone:
            assert (await api.call("POST", f"/ctrl/b/{backend}/hard-terminate"))[0] == 200
            while "Terminate" not in (await clone.receive("Action"))["action"]:
                pass
            # What a drone reports of a backend that it does not know.
            lost = {"status": "terminated", "last_status": "ready", "reason": "lost"}
            await clone.send("BackendEvent", state_event(1, backend, lost))
            await clone.receive("AckEvent")
            async with api.http.post(f"{api.base}/ctrl/connect", json=request) as response:
                assert (response.status, (await response.json())["kind"]) == (503, "FailedToAcquireKey")
                assert 50 <= int(response.headers["Retry-After"]) <= 60
            # The former drone does not get the key back either.
            await first.send("RenewKey", {"backend": backend, "local_time": 1})
            assert (await first.receive("RenewKeyResponse"))["deadlines"] is None
            await execute(postgres_url, "UPDATE backend_key SET expires_at = now()")
            assert (await api.connect(**request))["spawned"]


async def test_refused_node_logs_the_reason_and_retries(postgres_url: str) -> None:
    connected = asyncio.Event()

    async def session(socket: NodeSocket[MessageToDrone, MessageFromDrone]) -> None:
        connected.set()
        async for _ in socket.messages():
            pass

    async with controller_api(postgres_url) as api, fake_drone(api.base, identity=FIRST):
        connector = NodeConnector(
            ControllerUrl.parse(api.base),
            f"/ctrl/c/{CLUSTER}/drone-socket",
            "dr-fake",
            MessageToDrone,
            session,
            identity=DroneIdentity(**CLONE),
        )
        with capture_logs() as logs:
            running = asyncio.create_task(connector.run())
            try:
                async with asyncio.timeout(30):
                    while len(said := [e for e in logs if e["event"] == "controller refuses this node"]) < 2:
                        await asyncio.sleep(0.05)
            finally:
                running.cancel()
                await asyncio.wait([running])
    assert {(entry["log_level"], entry["reason"]) for entry in said} == {("warning", REFUSED)}


@pytest.mark.parametrize("identity", [None, FIRST], ids=["0.5.5", "ours"])
async def test_drone_gets_no_backends_before_its_first_heartbeat(
    postgres_url: str, identity: dict[str, str] | None
) -> None:
    async with controller_api(postgres_url) as api:
        async with fake_drone(api.base, identity=identity):
            await api.connect(spawn_config=IMAGE)
        await until_listed(api, False)
        async with silent_drone(api.base, identity=identity) as drone:
            await drone.send("RenewKey", {"backend": "none", "local_time": 1})
            await drone.receive("RenewKeyResponse")
            assert await api.refused(spawn_config=IMAGE) == (500, "NoDroneAvailable")
            await until_listed(api, False)
            await drone.beat()
            await until_listed(api, True)
            await api.connect(spawn_config=IMAGE)


async def test_heartbeat_of_a_former_connection_is_ignored(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as one,
        controller_api(postgres_url) as two,
        fake_drone(one.base) as former,
        silent_drone(two.base) as present,
    ):
        await present.send("RenewKey", {"backend": "none", "local_time": 1})
        await present.receive("RenewKeyResponse")
        await former.beat()
        await former.send("RenewKey", {"backend": "none", "local_time": 1})
        # Its heartbeat is written before the answer to what it said next, or together with it.
        await former.receive("RenewKeyResponse")
        await asyncio.sleep(0.2)
        assert (await registered_at(postgres_url))["last_local_time"] is None


@pytest.mark.parametrize("now", [RESTARTED, FIRST | {"clock": "c-9"}], ids=["another store", "another clock"])
async def test_pending_spawns_of_a_drone_that_started_over_are_terminated(
    postgres_url: str, now: dict[str, str]
) -> None:
    async with controller_api(postgres_url) as api:
        async with fake_drone(api.base, identity=FIRST) as drone:
            backend = (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["backend_id"]
            spawn = await drone.receive("Action")
        await until_listed(api, False)
        # It comes back as it was: it gets the order again.
        async with fake_drone(api.base, identity=FIRST) as drone:
            assert await drone.receive("Action") == spawn
        await until_listed(api, False)
        async with fake_drone(api.base, identity=now) as drone:
            action = await drone.receive("Action")
            assert action["backend_id"] == backend
            assert action["action"] == {"Terminate": {"kind": "hard", "reason": "lost"}}
            await drone.send("AckAction", {"action_id": action["action_id"]})
            # The next action is another backend's.
            await drone.beat()
            other = (await api.connect(spawn_config=IMAGE))["backend_id"]
            assert (await drone.receive("Action"))["backend_id"] == other
        await until_listed(api, False)
        async with obedient_drone(api.base, identity=now) as spawned:
            await api.connect(spawn_config=IMAGE)
            async with asyncio.timeout(10):
                while len(spawned) < 1:
                    await asyncio.sleep(0.02)
            assert backend not in spawned
