"""Route lookups of a proxy: a backend that does not become ready delays only its own lookups."""

from __future__ import annotations

from typing import Any

import asyncpg

from harness.controllers import controller_api
from harness.fake_node import FakeNode, fake_drone, fake_proxy
from plane.controller.nodes import route_lookups
from plane.settings import ControllerLimits

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}
READY = {"status": "ready", "address": "127.0.0.1:4567"}
TOKENS = 10_500


async def give_tokens(url: str, backend: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO token (token, backend_id, expiration_time, auth, secret_token)"
        " SELECT 't' || n, $1, now() + interval '1 hour', '{}', 's' FROM generate_series(1, $2::int) n",
        backend,
        TOKENS,
    )
    await connection.close()


async def report_ready(drone: FakeNode, backend: str, number: int) -> None:
    event = {"event_id": number, "backend_id": backend, "state": READY, "timestamp": 1}
    await drone.send("BackendEvent", event)


async def test_backend_that_is_never_ready_does_not_delay_other_lookups(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base) as drone,
        fake_proxy(api.base) as proxy,
    ):
        never = (await api.connect(spawn_config=IMAGE))["backend_id"]
        other = await api.connect(spawn_config=IMAGE)
        await give_tokens(postgres_url, never)
        for number in range(1, TOKENS + 1):
            await proxy.send("RouteInfoRequest", {"token": f"t{number}"})
        await report_ready(drone, other["backend_id"], 1)
        await drone.receive("AckEvent")
        await proxy.send("RouteInfoRequest", {"token": other["token"]})
        assert (await proxy.receive("RouteInfoResponse"))["token"] == other["token"]
        # All that could wait are answered when the other is ready after all.
        await report_ready(drone, never, 2)
        answered = {
            (await proxy.receive("RouteInfoResponse"))["token"] for _ in range(route_lookups.MAX_WAITING_PER_BACKEND)
        }
        assert len(answered) == route_lookups.MAX_WAITING_PER_BACKEND


async def test_repeated_lookup_gets_one_response(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base) as drone,
        fake_proxy(api.base) as proxy,
    ):
        answer = await api.connect(spawn_config=IMAGE)
        for _ in range(5):
            await proxy.send("RouteInfoRequest", {"token": answer["token"]})
        await proxy.send("RouteInfoRequest", {"token": "unknown"})
        assert (await proxy.receive("RouteInfoResponse"))["token"] == "unknown"
        await report_ready(drone, answer["backend_id"], 1)
        assert (await proxy.receive("RouteInfoResponse"))["route_info"]["address"] == "127.0.0.1:4567"
        await proxy.send("RouteInfoRequest", {"token": "unknown"})
        assert (await proxy.receive("RouteInfoResponse"))["token"] == "unknown"
        # Asked later, it is answered again.
        await proxy.send("RouteInfoRequest", {"token": answer["token"]})
        assert (await proxy.receive("RouteInfoResponse"))["token"] == answer["token"]


async def test_lookups_of_one_message_get_lists_and_one_with_much_user_data_a_message_of_its_own(
    postgres_url: str,
) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base) as drone,
        fake_proxy(api.base, extensions=["routes"]) as proxy,
    ):
        assert "routes" in proxy.controller["extensions"]
        much = {"text": "x" * route_lookups.LISTED_USER_DATA_BYTES}
        small = await api.connect(key={"name": "k"}, spawn_config=IMAGE, user="ann", auth={"n": 1})
        big = await api.connect(key={"name": "k"}, spawn_config=IMAGE, auth=much)
        await report_ready(drone, small["backend_id"], 1)
        await drone.receive("AckEvent")
        tokens = [small["token"], big["token"], "unknown"]
        await proxy.send("RouteInfoRequests", {"tokens": tokens})
        listed = (await proxy.receive("RouteInfoResponses"))["responses"]
        assert {response["token"] for response in listed} == {small["token"], "unknown"}
        by_token = {response["token"]: response["route_info"] for response in listed}
        assert by_token["unknown"] is None
        assert by_token[small["token"]]["user_data"] == {"n": 1}
        own = await proxy.receive("RouteInfoResponse")
        assert own["token"] == big["token"]
        assert own["route_info"]["user_data"] == much


async def test_proxy_that_does_not_understand_lists_gets_none(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_proxy(api.base) as proxy:
        for token in ("one", "two", "three"):
            await proxy.send("RouteInfoRequest", {"token": token})
        assert {(await proxy.receive("RouteInfoResponse"))["token"] for _ in range(3)} == {"one", "two", "three"}


async def test_lookup_ends_without_a_route_after_its_timeout(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url, limits=ControllerLimits(route_lookup_s=0.5)) as api,
        fake_drone(api.base) as drone,
        fake_proxy(api.base) as proxy,
    ):
        answer = await api.connect(spawn_config=IMAGE)
        await proxy.send("RouteInfoRequest", {"token": answer["token"]})
        assert await proxy.receive("RouteInfoResponse") == {"token": answer["token"], "route_info": None}
        await proxy.send("RouteInfoRequest", {"token": answer["token"]})
        await report_ready(drone, answer["backend_id"], 1)
        assert (await proxy.receive("RouteInfoResponse"))["route_info"] is not None
