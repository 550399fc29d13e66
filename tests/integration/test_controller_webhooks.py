"""Webhooks of a real controller, sent to receivers that verify them; misbehaving receivers; several controllers."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from aiohttp import web

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, obedient_drone
from harness.sql import sql
from harness.webhook_receiver import Receiver, webhook_receiver

IMAGE = {"executable": {"image": "i"}}
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@asynccontextmanager
async def world(url: str) -> AsyncIterator[tuple[Api, Receiver, asyncpg.Connection]]:
    """A controller that may send to loopback, a receiver, and a connection to the controller's database."""
    async with (
        webhook_receiver() as receiver,
        controller_api(url, webhook_allowed_networks=LOOPBACK) as api,
        sql(url) as connection,
    ):
        yield api, receiver, connection


async def hook(api: Api, receiver: Receiver, name: str = "hook", **config: Any) -> dict[str, Any]:
    """Set a webhook to the receiver."""
    status, body = await api.call("PUT", f"/ctrl/webhooks/{name}", {"url": receiver.url, **config})
    assert status == 200, body
    if body["secret"] is not None:
        receiver.secret = body["secret"]
    made: dict[str, Any] = body
    return made


async def state(api: Api, name: str = "hook") -> dict[str, Any]:
    status, body = await api.call("GET", f"/ctrl/webhooks/{name}")
    assert status == 200, body
    found: dict[str, Any] = body
    return found


async def until_state(api: Api, **wanted: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            found = await state(api)
            if {name: found[name] for name in wanted} == wanted:
                return found
            await asyncio.sleep(0.05)


async def add_events(connection: asyncpg.Connection, backends: int, per_backend: int, prefix: str = "b") -> None:
    """Events of many backends, those of one in order."""
    await connection.execute(
        "INSERT INTO plane_event (type, backend_id, data)"
        " SELECT 'backend.ready', $1::text || b, jsonb_build_object('number', n)"
        " FROM generate_series(1, $3::int) n, generate_series(1, $2::int) b ORDER BY n, b",
        prefix,
        backends,
        per_backend,
    )


def numbers(receiver: Receiver) -> dict[str, list[int]]:
    """The numbers of accepted events of each backend, in the order of their first acceptance."""
    found: dict[str, list[int]] = {}
    for body in dict(reversed(receiver.messages)).values():
        found.setdefault(body["data"]["backend"], [])
    seen = set()
    for identifier, body in receiver.messages:
        if identifier not in seen:
            seen.add(identifier)
            found[body["data"]["backend"]].append(body["data"]["data"]["number"])
    return found


async def test_events_are_signed_and_sent_from_the_webhook_on(postgres_url: str) -> None:
    async with (
        webhook_receiver() as receiver,
        controller_api(postgres_url, webhook_allowed_networks=LOOPBACK) as api,
        obedient_drone(api.base),
    ):
        await api.connect(key={"name": "before"}, spawn_config=IMAGE)
        made = await hook(api, receiver)
        assert made["webhook"]["types"] == ["backend.*", "drone.*"]
        backend = (await api.connect(key={"name": "k"}, spawn_config=IMAGE, user="ada"))["backend_id"]
        await receiver.until(lambda: any(body["data"].get("key") == "k" for _, body in receiver.messages))
        _, scheduled = next(each for each in receiver.messages if each[1]["data"].get("key") == "k")
        _, page = await api.call("GET", "/ctrl/events?key=k&after=0")
        event = page["events"][0]
        assert scheduled["type"] == "backend.scheduled"
        assert scheduled["timestamp"].endswith("Z")
        assert scheduled["data"] == {
            "id": event["id"],
            "cluster": CLUSTER,
            "backend": backend,
            "namespace": "",
            "key": "k",
            "user": "ada",
            "drone": "dr-fake",
        }
        await api.call("POST", f"/ctrl/b/{backend}/hard-terminate")
        await receiver.until(lambda: receiver.messages[-1][1]["type"] == "backend.terminated")
        sent = [body["type"] for _, body in receiver.messages if body["data"].get("key") == "k"]
        assert sent == ["backend.scheduled", "backend.ready", "backend.terminated"]
        assert not [body for _, body in receiver.messages if body["data"].get("key") == "before"][1:]
        assert receiver.invalid == []
        async with asyncio.timeout(10):
            while (await state(api))["delivered"] != len(receiver.ids()):
                await asyncio.sleep(0.02)


async def test_the_secret_is_shown_once_and_kept_until_it_is_rotated(postgres_url: str) -> None:
    async with webhook_receiver() as receiver, controller_api(postgres_url, webhook_allowed_networks=LOOPBACK) as api:
        first = (await hook(api, receiver))["secret"]
        assert first.startswith("whsec_")
        assert (await hook(api, receiver, types=["drone.*"]))["secret"] is None
        _, listed = await api.call("GET", "/ctrl/webhooks")
        assert first not in str(listed)
        assert await api.call("POST", "/ctrl/webhooks/hook/test") == (200, {"delivered": True, "error": None})
        assert receiver.messages[-1][1]["type"] == "webhook.test"
        second = (await hook(api, receiver, rotate_secret=True))["secret"]
        assert second not in (None, first)
        assert await api.call("POST", "/ctrl/webhooks/hook/test") == (200, {"delivered": True, "error": None})
        _, audit = await api.call("GET", "/ctrl/events?types=admin.*")
        assert first not in str(audit)
        assert [each["type"] for each in audit["events"]] == [
            "admin.webhook_set",
            "admin.webhook_set",
            "admin.webhook_test",
            "admin.webhook_set",
            "admin.webhook_test",
        ]


async def test_malformed_webhooks_are_refused(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        for name, body, status, named in (
            ("hook", {"url": "http://127.0.0.1/"}, 400, "--webhook-allow-network"),
            ("hook", {"url": "http://example.com", "types": ["backend.gone"]}, 400, "types"),
            ("hook", {"url": "http://example.com", "types": []}, 400, "types"),
            ("hook", {"url": 1}, 422, "url"),
            ("Hook", {"url": "http://example.com"}, 400, "name"),
        ):
            found, error = await api.call("PUT", f"/ctrl/webhooks/{name}", body)
            assert (found, named in error["message"]) == (status, True), error
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test")):
            status, error = await api.call(method, f"/ctrl/webhooks/none{path}")
            assert (status, error["kind"]) == (404, "NotFound")
        for number in range(100):
            status, _ = await api.call("PUT", f"/ctrl/webhooks/h{number}", {"url": "https://receiver.invalid/"})
            assert status == 200
        status, error = await api.call("PUT", "/ctrl/webhooks/h100", {"url": "https://receiver.invalid/"})
        assert (status, "100 webhooks" in error["message"]) == (400, True)
        assert (await api.call("PUT", "/ctrl/webhooks/h99", {"url": "https://other.invalid/"}))[0] == 200


async def test_a_failing_backend_holds_no_other_up_and_keeps_its_order(postgres_url: str) -> None:
    async with world(postgres_url) as (api, receiver, connection):
        await hook(api, receiver)
        broken = True
        receiver.respond = lambda body: web.Response(
            status=500 if broken and body["data"]["backend"] in ("b1", "b2") else 200
        )
        await add_events(connection, 20, 3)
        await receiver.until(lambda: len(receiver.ids()) == 18 * 3)
        # Events of other types do not count.
        await connection.execute("INSERT INTO plane_event (type) VALUES ('admin.drain')")
        found = await until_state(api, pending=6, behind=0)
        assert found["last_error"] == "the receiver responded 500"
        assert set(numbers(receiver)) == {f"b{number}" for number in range(3, 21)}
        broken = False
        await connection.execute("UPDATE plane_webhook_pending SET retry_at = now()")
        await receiver.until(lambda: len(receiver.ids()) == 60)
        assert set(map(tuple, numbers(receiver).values())) == {(1, 2, 3)}
        assert (await until_state(api, pending=0))["delivered"] == 60


async def test_a_receiver_that_is_down_is_tried_seldom_and_then_gets_everything(postgres_url: str) -> None:
    async with world(postgres_url) as (api, receiver, connection):
        await hook(api, receiver)
        receiver.respond = lambda _: web.Response(status=503)
        await add_events(connection, 200, 5)
        await receiver.until(lambda: len(receiver.attempts) >= 5)
        async with asyncio.timeout(10):
            while (found := await state(api))["retry_at"] is None:
                await asyncio.sleep(0.02)
        # Eight connections had begun when the fifth attempt failed.
        assert len(receiver.attempts) <= 5 + 8
        _, metrics = await api.call("GET", "/metrics")
        assert 'plane_webhook_receiver_down{webhook="hook"} 1.0' in metrics
        assert f'plane_webhook_attempts_total{{result="failed",webhook="hook"}} {len(receiver.attempts)}.0' in metrics
        assert found["pending"] <= 100
        tried = len(receiver.attempts)
        await connection.execute("UPDATE plane_webhook SET retry_at = now()")
        await receiver.until(lambda: len(receiver.attempts) > tried)
        await until_state(api, failures=found["failures"] + 1)
        assert len(receiver.attempts) == tried + 1
        receiver.respond = lambda _: web.Response()
        # Setting it again is how an operator says that the receiver is back.
        await hook(api, receiver)
        await connection.execute("UPDATE plane_webhook_pending SET retry_at = now()")
        await receiver.until(lambda: len(receiver.ids()) == 1000, 60)
        assert set(map(tuple, numbers(receiver).values())) == {(1, 2, 3, 4, 5)}


async def test_410_turns_the_webhook_off_until_it_is_set_again(postgres_url: str) -> None:
    async with world(postgres_url) as (api, receiver, connection):
        await hook(api, receiver)
        receiver.respond = lambda _: web.Response(status=410)
        await add_events(connection, 1, 3)
        found = await until_state(api, enabled=False)
        assert "410" in found["disabled_reason"]
        assert len(receiver.attempts) == 1
        receiver.respond = lambda _: web.Response()
        await hook(api, receiver)
        await connection.execute("UPDATE plane_webhook_pending SET retry_at = now()")
        await receiver.until(lambda: len(receiver.ids()) == 3)
        assert numbers(receiver) == {"b1": [1, 2, 3]}


async def test_an_event_that_fails_for_a_day_is_given_up_and_the_next_is_sent(postgres_url: str) -> None:
    async with world(postgres_url) as (api, receiver, connection):
        await hook(api, receiver)
        receiver.respond = lambda body: web.Response(status=500 if body["data"]["data"]["number"] == 1 else 200)
        await add_events(connection, 1, 2)
        await until_state(api, pending=2)
        await connection.execute("UPDATE plane_event SET created_at = created_at - interval '25 hours'")
        await connection.execute("UPDATE plane_webhook_pending SET retry_at = now()")
        await receiver.until(lambda: numbers(receiver) == {"b1": [2]})
        found = await until_state(api, pending=0)
        assert (found["delivered"], found["abandoned"]) == (1, 1)


async def test_events_deleted_before_delivery_are_reported(postgres_url: str) -> None:
    async with webhook_receiver() as receiver, sql(postgres_url) as connection:
        async with controller_api(postgres_url, webhook_allowed_networks=LOOPBACK) as api:
            await hook(api, receiver)
            receiver.respond = lambda _: web.Response(status=500)
            await add_events(connection, 1, 2)
            await until_state(api, pending=2)
        receiver.respond = lambda _: web.Response()
        # Nobody delivers, and the retention passes.
        await add_events(connection, 1, 2, "late")
        await connection.execute("UPDATE plane_event_pruned SET through = (SELECT max(id) FROM plane_event)")
        await connection.execute("DELETE FROM plane_event")
        async with controller_api(postgres_url, webhook_allowed_networks=LOOPBACK) as api:
            found = await until_state(api, pending=0)
            assert (found["delivered"], found["abandoned"]) == (0, 2)
            assert "--event-retention-days" in found["last_error"]
            await add_events(connection, 1, 1, "c")
            await receiver.until(lambda: numbers(receiver) == {"c1": [1]})


async def test_retention_while_nothing_is_pending_is_reported_too(postgres_url: str) -> None:
    async with webhook_receiver() as receiver, sql(postgres_url) as connection:
        async with controller_api(postgres_url, webhook_allowed_networks=LOOPBACK) as api:
            await hook(api, receiver)
        await add_events(connection, 1, 2, "late")
        await connection.execute("UPDATE plane_event_pruned SET through = (SELECT max(id) FROM plane_event)")
        await connection.execute("DELETE FROM plane_event")
        async with controller_api(postgres_url, webhook_allowed_networks=LOOPBACK) as api, asyncio.timeout(10):
            while "--event-retention-days" not in ((await state(api))["last_error"] or ""):
                await asyncio.sleep(0.05)


async def test_a_deleted_webhook_sends_nothing_more(postgres_url: str) -> None:
    async with world(postgres_url) as (api, receiver, connection):
        await hook(api, receiver)
        await hook(api, receiver, name="other")
        assert await api.call("DELETE", "/ctrl/webhooks/hook") == (200, None)
        # A round that had begun may still send these, but no later ones.
        await add_events(connection, 5, 1)
        await receiver.until(lambda: len(receiver.messages) == 5)
        await add_events(connection, 5, 1, "late")
        await receiver.until(lambda: len(receiver.messages) == 10)
        assert not [each for each in receiver.invalid if "late" in each]
        _, listed = await api.call("GET", "/ctrl/webhooks")
        assert [each["name"] for each in listed["webhooks"]] == ["other"]


async def test_a_controller_that_stops_hands_its_webhooks_over_at_once(postgres_url: str) -> None:
    async with webhook_receiver() as receiver, sql(postgres_url) as connection:
        async with controller_api(postgres_url, webhook_allowed_networks=LOOPBACK) as first:
            await hook(first, receiver)
            await add_events(connection, 5, 1)
            await receiver.until(lambda: len(receiver.ids()) == 5)
            async with controller_api(postgres_url, webhook_allowed_networks=LOOPBACK):
                await add_events(connection, 5, 1, "c")
                await receiver.until(lambda: len(receiver.ids()) == 10)
        assert await connection.fetchval("SELECT holder FROM plane_webhook") is None
        async with controller_api(postgres_url, webhook_allowed_networks=LOOPBACK):
            await add_events(connection, 5, 1, "d")
            await receiver.until(lambda: len(receiver.ids()) == 15)
    # Nothing twice: each was sent by the one that held the lease.
    assert len(receiver.attempts) == 15
