"""The number of round trips to PostgreSQL of a connect, counted on the wire."""

from __future__ import annotations

import statistics
from typing import Any

from harness.controllers import controller_api
from harness.fake_node import fake_drone
from harness.postgres_relay import postgres_relay

IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}


async def test_held_key_costs_one_round_trip_and_a_new_one_two(postgres_url: str) -> None:
    async with postgres_relay(postgres_url) as relay, controller_api(relay.url) as api, fake_drone(api.base):

        async def cost(**request: Any) -> int:
            before = relay.round_trips
            await api.connect(spawn_config=IMAGE, **request)
            return relay.round_trips - before

        # The first ones also open connections and prepare the statements on each.
        for number in range(40):
            await cost(key={"name": f"warm-{number}"})
        new = [await cost(key={"name": f"new-{number}"}) for number in range(50)]
        held = [await cost(key={"name": "new-0"}) for _ in range(50)]
        # Heartbeats and other upkeep may fall in between now and then.
        assert statistics.mode(new) == min(new) == 2
        assert statistics.mode(held) == min(held) == 1


async def test_a_key_whose_holder_has_ended_costs_two_round_trips(postgres_url: str) -> None:
    async with (
        postgres_relay(postgres_url) as relay,
        controller_api(relay.url) as api,
        fake_drone(api.base) as drone,
    ):
        costs = []
        for number in range(50):
            backend = (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["backend_id"]
            state = {"status": "terminated", "last_status": "scheduled"}
            event = {"event_id": number + 1, "backend_id": backend, "state": state, "timestamp": 1}
            # Whoever watches has heard of it, and so has the controller.
            async with api.http.get(f"{api.base}/pub/b/{backend}/status-stream") as stream:
                await drone.send("BackendEvent", event)
                await stream.read()
            await drone.receive("AckEvent")
            before = relay.round_trips
            again = await api.connect(key={"name": "k"}, spawn_config=IMAGE)
            costs.append(relay.round_trips - before)
            assert again["spawned"] is True
            await api.call("POST", f"/ctrl/b/{again['backend_id']}/hard-terminate")
            event = {**event, "event_id": 1000 + number, "backend_id": again["backend_id"]}
            await drone.send("BackendEvent", event)
            await drone.receive("AckEvent")
        assert statistics.mode(costs[10:]) == min(costs[10:]) == 2
