"""``GET /ctrl/events``: pages, streams, cursors and roles; and the audit log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, fake_drone, obedient_drone
from harness.sql import sql
from plane.controller.upkeep.reaper import reap
from plane.database.pool import open_database
from plane.decisions.access import Role, key_entry
from plane.settings import ControllerLimits

IMAGE = {"executable": {"image": "i"}}


async def events(api: Api, query: str = "") -> list[dict[str, Any]]:
    status, body = await api.call("GET", f"/ctrl/events?after=0{query}")
    assert status == 200, body
    found: list[dict[str, Any]] = body["events"]
    return found


class Stream:
    """A reader of server-sent events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id = ""

    async def next(self) -> dict[str, Any]:
        """The next event with data."""
        data = None
        async with asyncio.timeout(10):
            while True:
                line = (await self.response.content.readline()).decode()
                assert line, "the stream has ended"
                if line.startswith("id: "):
                    self.last_id = line[4:].strip()
                elif line.startswith("data: "):
                    data = json.loads(line[6:])
                elif line == "\n" and data is not None:
                    return dict(data)


@asynccontextmanager
async def stream(api: Api, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    async with api.http.get(f"{api.base}/ctrl/events?follow=true{query}", headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Stream(response)


async def test_a_backend_is_followed_from_its_spawn_to_its_end(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, obedient_drone(api.base), stream(api) as followed:
        connected = await api.connect(key={"name": "k", "namespace": "n"}, spawn_config=IMAGE, user="ada")
        backend = connected["backend_id"]
        scheduled = await followed.next()
        assert scheduled | {"id": 0, "time": 0} == {
            "id": 0,
            "type": "backend.scheduled",
            "time": 0,
            "cluster": CLUSTER,
            "backend": backend,
            "namespace": "n",
            "key": "k",
            "user": "ada",
            "drone": "dr-fake",
        }
        await api.call("POST", f"/ctrl/b/{backend}/hard-terminate")
        types = [(await followed.next())["type"] for _ in range(3)]
        assert types.index("backend.ready") < types.index("backend.terminated") or "backend.ready" not in types
        assert {"admin.terminate", "backend.terminated"} <= set(types)
        ended = (await events(api, "&types=backend.terminated"))[0]
        assert (ended["key"], ended["user"], ended["drone"]) == ("k", "ada", "dr-fake")


async def test_a_held_key_writes_no_event(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        obedient_drone(api.base),
        stream(api, "&types=backend.ready") as ready,
    ):
        await api.connect(key={"name": "k"}, spawn_config=IMAGE)
        await ready.next()
        before = await events(api)
        for _ in range(5):
            assert (await api.connect(key={"name": "k"}, spawn_config=IMAGE))["spawned"] is False
        assert await events(api) == before


async def test_pages_lead_through_the_feed_in_both_directions(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        for number in range(5):
            await api.connect(key={"name": f"k{number}"}, spawn_config=IMAGE)
        everything = await events(api)
        assert [each.get("key") for each in everything] == [None, "k0", "k1", "k2", "k3", "k4"]
        _, latest = await api.call("GET", "/ctrl/events?limit=2")
        assert latest["events"] == everything[-2:]
        assert latest["cursor"] == everything[-1]["id"]
        _, older = await api.call("GET", f"/ctrl/events?limit=3&before={latest['older']}")
        assert older["events"] == everything[1:4]
        _, oldest = await api.call("GET", f"/ctrl/events?limit=3&before={older['older']}")
        assert (oldest["events"], oldest["older"]) == (everything[:1], None)
        _, first = await api.call("GET", "/ctrl/events?limit=4&after=0")
        assert (first["events"], first["more"]) == (everything[:4], True)
        _, rest = await api.call("GET", f"/ctrl/events?limit=4&after={first['cursor']}")
        assert (rest["events"], rest["more"]) == (everything[4:], False)
        assert await events(api, "&key=k3") == [everything[4]]
        assert await events(api, "&types=drone.*") == everything[:1]


async def test_a_reader_that_reconnects_continues_after_its_last_event(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base):
        async with stream(api, "&after=0&types=backend.*") as first:
            await api.connect(key={"name": "k0"}, spawn_config=IMAGE)
            assert (await first.next())["key"] == "k0"
        for number in (1, 2):
            await api.connect(key={"name": f"k{number}"}, spawn_config=IMAGE)
        # The header of a client that reconnects counts, not its first cursor.
        async with stream(api, "&after=0", **{"Last-Event-ID": first.last_id}) as second:
            assert [(await second.next())["key"] for _ in range(2)] == ["k1", "k2"]
            await api.connect(key={"name": "k3"}, spawn_config=IMAGE)
            assert (await second.next())["key"] == "k3"


async def test_keepalives_move_the_cursor_of_a_reader_that_filters(postgres_url: str) -> None:
    limits = ControllerLimits(stream_keep_alive_s=0.05)
    async with (
        controller_api(postgres_url, limits=limits) as api,
        fake_drone(api.base),
        stream(api, "&types=drone.lost") as followed,
    ):
        await api.connect(key={"name": "k0"}, spawn_config=IMAGE)
        newest = (await events(api))[-1]["id"]
        async with asyncio.timeout(10):
            while (await followed.response.content.readline()).strip() != f"id: {newest}".encode():
                pass


async def test_a_reader_that_does_not_read_is_dropped(postgres_url: str) -> None:
    limits = ControllerLimits(stream_keep_alive_s=0.02, stream_write_s=0.2)
    async with controller_api(postgres_url, limits=limits) as api:
        host, port = api.base.removeprefix("http://").split(":")
        async with sql(postgres_url) as connection:
            await connection.execute(
                "INSERT INTO plane_event (type, data)"
                " SELECT 'drone.lost', jsonb_build_object('text', repeat('x', 9000))"
                " FROM generate_series(1, 3000)"
            )
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(b"GET /ctrl/events?follow=true&after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await writer.drain()
        async with asyncio.timeout(10):
            # The connection is reset although its 27 MB were not read; until then nothing ends.
            await until_reset(reader, writer)
        writer.close()


async def until_reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not reader.at_eof() and reader.exception() is None:
        await asyncio.sleep(0.05)
        try:
            writer.write(b"\r\n")
            await writer.drain()
        except ConnectionError:
            return


async def test_a_cursor_outside_the_feed_gets_410_with_one_to_continue_with(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        fake_drone(api.base),
        sql(postgres_url) as connection,
    ):
        for number in range(3):
            await api.connect(key={"name": f"k{number}"}, spawn_config=IMAGE)
        everything = await events(api)
        await connection.execute("DELETE FROM plane_event WHERE id <= $1", everything[1]["id"])
        await connection.execute("UPDATE plane_event_pruned SET through = $1", everything[1]["id"])
        for query in ("", "&follow=true"):
            status, body = await api.call("GET", f"/ctrl/events?after={everything[0]['id']}{query}")
            assert status == 410
            assert "--event-retention-days" in body["message"]
            assert body["cursor"] == everything[1]["id"]
        status, rest = await api.call("GET", f"/ctrl/events?after={body['cursor']}")
        assert (status, rest["events"]) == (200, everything[2:])
        assert await events(api) == everything[2:]
        # The database was replaced by an older copy.
        status, body = await api.call("GET", "/ctrl/events?after=1000")
        assert (status, body["cursor"]) == (410, everything[-1]["id"])


async def test_malformed_parameters_are_refused(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        for query, named in (
            ("after=x", "after"),
            ("after=-1", "after"),
            ("before=0", "before"),
            ("after=1&before=2", "before"),
            ("limit=1001", "limit"),
            ("types=backend.gone", "types"),
            ("types=", "types"),
            ("key=%00", "key"),
            ("follow=yes", "follow"),
        ):
            status, body = await api.call("GET", f"/ctrl/events?{query}")
            assert (status, named in body["message"]) == (400, True), (query, body)


async def test_calls_are_recorded_with_their_caller_and_shown_to_administrators_only(
    postgres_url: str, tmp_path: Path
) -> None:
    keys = {role: f"key-of-{role}" for role in Role}
    file = tmp_path / "keys"
    file.write_text("".join(key_entry(f"name-of-{role}", role, key) + "\n" for role, key in keys.items()))
    headers = {role: {"Authorization": f"Bearer {key}"} for role, key in keys.items()}
    async with controller_api(postgres_url, api_key_file=file) as api, aiohttp.ClientSession() as node_http:
        async with node_http.ws_connect(
            f"{api.base}/ctrl/c/{CLUSTER}/drone-socket", headers=headers[Role.NODE]
        ) as socket:
            await socket.send_json({"version": {"version": "0.5.5", "git_hash": ""}, "name": "dr-fake"})
            await socket.receive()
            await socket.send_json({"Heartbeat": {"local_time": 1}})
            connect = {"key": {"name": "k"}, "spawn_config": IMAGE, "user": "ada"}
            async with asyncio.timeout(10):
                while True:
                    status, body = await api.call("POST", "/ctrl/connect", connect, headers=headers[Role.CONNECT])
                    if status == 200:
                        break
            backend = body["backend_id"]
            await api.call("POST", f"/ctrl/b/{backend}/soft-terminate", headers=headers[Role.CONNECT])
            revoke = {"backend_id": backend, "user": "ada"}
            await api.call("POST", "/ctrl/b/revoke", revoke, headers=headers[Role.CONNECT])
            await api.call("POST", f"/ctrl/c/{CLUSTER}/d/dr-fake/drain", headers=headers[Role.ADMIN])
            await api.call("POST", f"/ctrl/c/{CLUSTER}/d/dr-none/drain", headers=headers[Role.ADMIN])
            await api.call("POST", f"/ctrl/c/{CLUSTER}/d/dr-fake/undrain", headers=headers[Role.ADMIN])
        _, audit = await api.call("GET", "/ctrl/events?types=admin.*", headers=headers[Role.ADMIN])
        assert [(each["type"], each["data"]["caller"], each["data"]["arguments"]) for each in audit["events"]] == [
            ("admin.terminate", "name-of-connect", {"backend": backend, "kind": "soft"}),
            ("admin.revoke", "name-of-connect", {"backend": backend, "user": "ada", "tokens": 1}),
            ("admin.drain", "name-of-admin", {}),
            ("admin.undrain", "name-of-admin", {}),
        ]
        assert {each["data"]["address"] for each in audit["events"]} == {"127.0.0.1"}
        assert [each.get("drone") for each in audit["events"]] == [None, None, "dr-fake", "dr-fake"]
        _, seen = await api.call("GET", "/ctrl/events", headers=headers[Role.READ])
        assert {each["type"] for each in seen["events"]} >= {"backend.scheduled", "drone.draining"}
        assert not [each for each in seen["events"] if each["type"].startswith("admin.")]
        status, _ = await api.call("GET", "/ctrl/events?types=admin.*", headers=headers[Role.READ])
        assert status == 403
        status, _ = await api.call("GET", "/ctrl/events", headers=headers[Role.NODE])
        assert status == 403


async def test_each_silence_of_a_drone_is_one_event(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        open_database(postgres_url) as db,
        sql(postgres_url) as connection,
    ):
        async with fake_drone(api.base, "dr-lost"), fake_drone(api.base, "dr-stopped"):
            pass

        async def silence() -> list[str]:
            await connection.execute("UPDATE drone SET last_heartbeat = now() - interval '200 s' - id * interval '1 s'")
            await reap(db)
            await reap(db)
            return [each["drone"] for each in await events(api, "&types=drone.lost")]

        await connection.execute(
            "UPDATE drone SET ready = false WHERE id = (SELECT id FROM node WHERE name = 'dr-stopped')"
        )
        assert await silence() == ["dr-lost"]
        async with fake_drone(api.base, "dr-lost"):
            pass
        assert await silence() == ["dr-lost", "dr-lost"]
