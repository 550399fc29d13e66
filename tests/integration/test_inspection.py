"""Lists of backends and nodes, and the details of a backend, for operators."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from harness.controllers import controller_api
from harness.fake_node import CLUSTER, fake_dns, fake_drone, fake_proxy, obedient_drone
from plane.client import AsyncPlane, BackendStatus, CallRefused, DockerExecutable, KeyConfig, SpawnConfig

IMAGE = DockerExecutable(image="example/image")
CONFIG = SpawnConfig(executable=IMAGE, max_idle_seconds=60, lifetime_limit_seconds=600)


async def test_backends_are_listed_by_cluster_status_and_key(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, obedient_drone(api.base, pool="p"), AsyncPlane(api.base) as plane:
        spawn = SpawnConfig(executable={"image": "example/image"}, pool="p")
        names = [(await plane.connect(KeyConfig(name=f"k{n}", namespace="n"), spawn)).backend_id for n in range(3)]
        for name in names:
            await plane.until_ready(name)
        await plane.terminate(names[0])
        async for _ in plane.status_stream(names[0]):
            pass
        live = await plane.backends()
        assert {found.id for found in live.backends} == set(names[1:])
        assert not live.more
        first = live.backends[0]
        assert (first.cluster, first.drone, first.pool, first.status) == (CLUSTER, "dr-fake", "p", BackendStatus.READY)
        assert (await plane.backends(status="all")).backends[0].id == names[0]
        (ended,) = (await plane.backends(status="terminated")).backends
        assert (ended.id, ended.key) == (names[0], KeyConfig(name="k0", namespace="n"))
        assert [found.id for found in (await plane.backends(key="k1", namespace="n")).backends] == [names[1]]
        assert (await plane.backends(key="k1", namespace="other")).backends == []
        assert (await plane.backends(cluster="other.example")).backends == []
        short = await plane.backends(limit=1)
        assert (len(short.backends), short.more) == (1, True)


async def test_search_among_many_terminated_backends_says_that_it_is_not_complete(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base), AsyncPlane(api.base) as plane:
        names = [(await plane.connect(KeyConfig(name=f"k{n}"), CONFIG)).backend_id for n in range(4)]
        database = await asyncpg.connect(postgres_url)
        for age, name in enumerate(names[:3], 1):
            await database.execute(
                "UPDATE backend SET last_status = 'terminated', last_status_number = 70,"
                f" last_status_time = now() - {age} * interval '1 minute' WHERE id = '{name}'",
            )
        await database.close()
        monkeypatch.setattr("plane.database.inspection.SEARCHED_TERMINATED", 2)
        latest, oldest = await plane.backends(status="all", key="k0"), await plane.backends(status="all", key="k2")
        assert ([found.id for found in latest.backends], latest.more) == ([names[0]], True)
        assert (oldest.backends, oldest.more) == ([], True)
        # Without a filter nothing is searched, and live ones are all read.
        assert [found.id for found in (await plane.backends(status="terminated")).backends] == names[:3]
        everything = await plane.backends(status="all")
        assert ([found.id for found in everything.backends], everything.more) == ([names[3], *names[:3]], False)
        live = await plane.backends(key="k3")
        assert ([found.id for found in live.backends], live.more) == ([names[3]], False)
        monkeypatch.setattr("plane.database.inspection.SEARCHED_TERMINATED", 3)
        assert not (await plane.backends(status="all", key="k2")).more


async def test_details_of_a_backend(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base) as drone, AsyncPlane(api.base) as plane:
        name = (await plane.connect("k", CONFIG, user="ada")).backend_id
        found = await plane.backend(name)
        assert [entry.status for entry in found.states] == [BackendStatus.SCHEDULED]
        assert found.pending_actions == 1
        assert (found.tokens, found.static_token, found.max_idle_s) == (1, False, 60)
        assert found.lease_ends_in_s is not None
        assert found.lifetime_ends_in_s is not None
        assert 0 < found.lease_ends_in_s <= 60
        assert 500 < found.lifetime_ends_in_s <= 600
        action = await drone.receive("Action")
        await drone.send("AckAction", {"action_id": action["action_id"]})
        states: tuple[dict[str, Any], ...] = (
            {"status": "ready", "address": "10.1.2.3:4"},
            {"status": "terminated", "last_status": "ready", "exit_code": 3, "message": "it broke"},
        )
        for number, state in enumerate(states):
            event = {"event_id": number, "backend_id": name, "state": state, "timestamp": 1}
            await drone.send("BackendEvent", event)
            await drone.receive("AckEvent")
            found = await plane.backend(name)
            assert found.address == state.get("address")
        assert found.states[-1].message == "it broke"
        assert (found.lease_ends_in_s, found.fencing_token) == (None, None)
        # The acknowledgement of an action has no answer that could be waited for.
        async with asyncio.timeout(10):
            while (await plane.backend(name)).pending_actions:
                await asyncio.sleep(0.02)
        with pytest.raises(CallRefused, match="does not exist"):
            await plane.backend("nobody")


async def test_connected_and_disconnected_nodes_are_listed(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, AsyncPlane(api.base) as plane:
        async with fake_drone(api.base, pool="p"), fake_proxy(api.base), fake_dns(api.base):
            await plane.connect("k", SpawnConfig(executable=IMAGE, pool="p"))
            found = {node.name: node for node in (await plane.nodes()).nodes}
            assert set(found) == {"dr-fake", "px-fake", "ns-fake"}
            drone = found["dr-fake"]
            assert (drone.pool, drone.ready, drone.draining, drone.backends) == ("p", True, False, 1)
            assert drone.controller
            assert found["ns-fake"].cluster is None
            assert found["px-fake"].backends is None
            assert {node.name for node in (await plane.nodes(cluster=CLUSTER)).nodes} == {"dr-fake", "px-fake"}
            assert (await plane.nodes(limit=1)).more
        async with asyncio.timeout(10):
            while (await plane.nodes()).nodes:
                await asyncio.sleep(0.02)
        gone = (await plane.nodes(include_disconnected=True)).nodes
        assert len(gone) == 3
        assert {(node.controller, node.connected_s) for node in gone} == {(None, None)}
        assert (await api.call("GET", "/ctrl/nodes?all=perhaps"))[0] == 400


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("status=odd", "status"), ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=²", "limit"), ("key=%00", "key")],
)
async def test_invalid_parameters_are_named(query: str, parameter: str, postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        status, body = await api.call("GET", f"/ctrl/backends?{query}")
        assert status == 400
        assert f"query parameter {parameter}:" in body["message"]
        assert (await api.call("GET", "/ctrl/backends?cluster=a%20b"))[0] == 400
