"""The console of real controllers: sessions, roles, forged requests, pages, and streams."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from harness.console_visitor import Page, console_visitor
from harness.controllers import controller_api
from harness.fake_node import CLUSTER, fake_drone, fake_proxy, obedient_drone
from harness.ports import free_port
from plane.decisions.access import Role, key_entry

KEYS = {role: f"key-of-{role}-0123456789" for role in Role}
HOSTILE = "\"><img src=x onerror=alert(1)><script>alert('&')</script>"
SPAWN = {"executable": {"image": "example/image"}}
PAGES = ("/console", "/console/backends", "/console/drones", "/console/events")
ADMIN_PAGES = ("/console/webhooks", "/console/audit")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("".join(f"{key_entry(f'the-{role}', role, key)}\n" for role, key in KEYS.items()))
    return file


@asynccontextmanager
async def signed_in(db: str, key_file: Path, *roles: Role) -> AsyncIterator[list[Any]]:
    """A controller without keys for nodes, one with keys, and a visitor of it per role."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(controller_api(db))
        guarded = await stack.enter_async_context(controller_api(db, api_key_file=key_file))
        visitors = [await stack.enter_async_context(console_visitor(guarded.base)) for _ in roles]
        for visitor, role in zip(visitors, roles, strict=True):
            assert (await visitor.sign_in(KEYS[role])).status == 303
        yield [api, *visitors]


def has_button(page: Page, name: str) -> bool:
    return re.search(rf"<button[^>]*>{name}\b", page.text) is not None


async def test_without_a_session_every_page_leads_to_the_sign_in(postgres_url: str, key_file: Path) -> None:
    async with controller_api(postgres_url, api_key_file=key_file) as api, console_visitor(api.base) as visitor:
        for path in (*PAGES, "/console/backends/x", "/console/nothing"):
            page = await visitor.get(path)
            assert (page.status, page.headers["Location"][:22]) == (303, "/console/sign-in?next=")
        assert (await visitor.get("/console/live/overview", Accept="text/event-stream")).status == 401
        assert (await visitor.get("/console/session", Accept="text/event-stream")).status == 401
        assert (await visitor.post("/console/backends/x/terminate", kind="soft")).status == 401


async def test_an_api_key_opens_a_session_with_a_strict_cookie(postgres_url: str, key_file: Path) -> None:
    async with controller_api(postgres_url, api_key_file=key_file) as api, console_visitor(api.base) as visitor:
        form = {"key": KEYS[Role.READ], "next": "/console/drones"}
        response = await visitor.send("POST", "/console/sign-in", {"Origin": api.base}, data=form)
        assert (response.status, response.headers["Location"]) == (303, "/console/drones")
        cookie = response.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=43200"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert KEYS[Role.READ] not in cookie
        assert "the-read" in (await visitor.get("/console/drones")).text
        over_tls = {"Origin": "https://plane.example", "Host": "plane.example"}
        response = await visitor.send("POST", "/console/sign-in", over_tls, data={"key": KEYS[Role.READ]})
        assert "; Secure" in response.headers["Set-Cookie"]


async def test_keys_that_may_not_read_are_refused_with_a_reason(postgres_url: str, key_file: Path) -> None:
    async with controller_api(postgres_url, api_key_file=key_file) as api, console_visitor(api.base) as visitor:
        refused = {"wrong": "No API key like this", KEYS[Role.NODE]: "has the role node", "": "No API key like this"}
        for key, reason in refused.items():
            page = await visitor.sign_in(key)
            assert page.status == 403
            assert reason in page.text
            assert "Set-Cookie" not in page.headers
            assert not key or key not in page.text


async def test_sign_in_attempts_are_limited(postgres_url: str, key_file: Path) -> None:
    async with controller_api(postgres_url, api_key_file=key_file) as api, console_visitor(api.base) as visitor:
        pages = [await visitor.sign_in("wrong") for _ in range(12)]
        assert [page.status for page in pages[:10]] == [403] * 10
        refused = [page for page in pages if page.status == 429]
        assert refused
        assert refused[0].headers["Retry-After"] == "5"
        # Not even the right key is looked at.
        assert (await visitor.sign_in(KEYS[Role.ADMIN])).status == 429


async def test_every_controller_accepts_a_session_until_its_key_is_removed(postgres_url: str, key_file: Path) -> None:
    async with (
        controller_api(postgres_url, api_key_file=key_file) as other,
        # Started last, so the signal reaches it.
        controller_api(postgres_url, api_key_file=key_file) as one,
        console_visitor(one.base) as visitor,
    ):
        await visitor.sign_in(KEYS[Role.READ])
        visitor.base = other.base
        assert (await visitor.get("/console/drones")).status == 200
        visitor.base = one.base
        opened = asyncio.Event()
        stream = asyncio.create_task(visitor.events("/console/live/overview", "signed-out", opened))
        await opened.wait()
        key_file.write_text(key_entry("another", Role.READ, "another-key-0123456789"))
        async with asyncio.timeout(20):
            while (await visitor.get("/console/drones")).status == 200:
                os.kill(os.getpid(), signal.SIGHUP)
                await asyncio.sleep(0.01)
            # An open page ends, too.
            await stream


async def test_a_sign_out_forgets_the_cookie(postgres_url: str, key_file: Path) -> None:
    async with signed_in(postgres_url, key_file, Role.READ) as (_, visitor):
        page = await visitor.post("/console/sign-out")
        assert (page.status, page.headers["Location"]) == (303, "/console/sign-in")
        assert (await visitor.get("/console")).status == 303


async def test_roles_see_and_do_what_they_may(postgres_url: str, key_file: Path) -> None:
    async with (
        signed_in(postgres_url, key_file, Role.READ, Role.CONNECT, Role.ADMIN) as (api, read, connect, admin),
        obedient_drone(api.base),
    ):
        backend = (await api.connect(key={"name": "k"}, user="ada", spawn_config=SPAWN))["backend_id"]
        detail, drain = f"/console/backends/{backend}", f"/console/drones/{CLUSTER}/dr-fake/drain"
        for visitor, may_change, may_drain in ((read, False, False), (connect, True, False), (admin, True, True)):
            page = await visitor.get(detail)
            for button in ("Terminate", "Kill", "Open", "Revoke"):
                assert has_button(page, button) is may_change, button
            assert has_button(await visitor.get("/console/drones"), "Drain") is may_drain
        for path, fields in (("terminate", {"kind": "soft"}), ("revoke", {"user": "ada"}), ("open", {})):
            refused = await read.post(f"{detail}/{path}", **fields)
            assert refused.status == 403
            assert "the role read" in refused.text
        for visitor in (read, connect):
            assert (await visitor.post(drain)).status == 403
        assert "gets no more backends" in (await admin.post(drain)).text
        assert "draining" in (await read.get("/console/drones")).text
        assert "gets backends again" in (await admin.post(drain.replace("drain", "undrain"))).text
        assert "1 tokens of ada" in (await connect.post(f"{detail}/revoke", user="ada")).text
        opened = await connect.post(f"{detail}/open")
        assert opened.status == 200
        assert f"http://{CLUSTER}/" in opened.text
        assert "ordered to terminate" in (await connect.post(f"{detail}/terminate", kind="soft")).text
        await connect.events(f"/console/live/backends/{backend}", "terminated")
        assert "already ended" in (await connect.post(f"{detail}/terminate", kind="hard")).text
        assert (await connect.post(f"{detail}/terminate", kind="gently")).status == 400
        assert (await connect.post("/console/backends/nobody/terminate", kind="soft")).status == 404


async def test_forged_changes_are_refused(postgres_url: str, key_file: Path) -> None:
    async with (
        signed_in(postgres_url, key_file, Role.ADMIN, Role.ADMIN) as (api, admin, other),
        fake_drone(api.base),
    ):
        drain = f"/console/drones/{CLUSTER}/dr-fake/drain"
        await asyncio.sleep(1.1)  # Sessions of one second are the same.
        await other.sign_in(KEYS[Role.ADMIN])
        assert other.token != admin.token
        for forged in (
            {"token": ""},
            {"token": "é"},
            {"token": other.token},
            {"origin": None},
            {"origin": "null"},
            {"origin": "https://evil.example"},
        ):
            page = await admin.post(drain, **forged)
            assert page.status == 403, forged
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
            more = {"Origin": admin.base, "X-CSRF-Token": admin.token, **headers}
            assert (await admin.send("POST", drain, more)).status == 403
        assert (await admin.get(drain)).status == 405 or "Drain" not in (await admin.get(drain)).text
        foreign = await admin.send("POST", "/console/sign-in", {}, data={"key": KEYS[Role.ADMIN]})
        assert foreign.status == 403
        assert "Set-Cookie" not in foreign.headers
        _, state = await api.call("GET", f"/ctrl/c/{CLUSTER}/state")
        assert state["drones"][0]["draining"] is False


async def test_an_altered_cookie_is_no_session(postgres_url: str, key_file: Path) -> None:
    async with controller_api(postgres_url, api_key_file=key_file) as api, console_visitor(api.base) as visitor:
        for cookie in ("", "x", f"{'0' * 32}.9999999999.{'0' * 64}", "\xff"):
            page = await visitor.send("GET", "/console", {"Cookie": f"plane_console={cookie}"})
            assert page.status == 303


async def test_the_session_opens_the_console_and_not_the_api(postgres_url: str, key_file: Path) -> None:
    async with signed_in(postgres_url, key_file, Role.ADMIN) as (_, admin):
        cookie = "; ".join(f"{c.key}={c.value}" for c in admin.http.cookie_jar)
        assert cookie
        assert (await admin.send("GET", "/ctrl/nodes", {"Cookie": cookie})).status == 401


async def test_a_link_from_another_site_opens_the_page(postgres_url: str, key_file: Path) -> None:
    async with signed_in(postgres_url, key_file, Role.READ) as (_, visitor):
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        page = await visitor.send("GET", '/console/backends?q="><script>', link)
        assert page.status == 200
        assert "0; url=/console/backends?q=" in page.text
        assert "<script" not in page.text
        assert "the-read" not in page.text
        framed = {**link, "Sec-Fetch-Dest": "iframe"}
        assert (await visitor.send("GET", "/console", framed)).status == 403


async def test_without_keys_the_console_serves_loopback_under_known_names(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, console_visitor(api.base) as visitor:
        page = await visitor.get("/console/drones")
        assert page.status == 200
        assert "Sign out" not in page.text
        visitor.token = page.csrf_token
        rebound = {"Host": "evil.example:8080", "Origin": "http://evil.example:8080", "Sec-Fetch-Site": "same-origin"}
        assert (await visitor.send("GET", "/console", rebound)).status == 403
        assert (await visitor.send("POST", "/console/sign-in", rebound)).status == 403
        drain = f"/console/drones/{CLUSTER}/nobody/drain"
        assert (await visitor.post(drain)).status == 404
        assert (await visitor.post(drain, token="")).status == 403
        assert (await visitor.get("/console/sign-in")).headers["Location"] == "/console"


async def test_every_response_has_the_security_headers(postgres_url: str, key_file: Path) -> None:
    async with signed_in(postgres_url, key_file, Role.READ) as (_, visitor):
        drones = await visitor.get("/console/drones")
        static = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', drones.text)
        assert len(static) >= 4
        for path in (*PAGES, *static, "/console/nothing", "/console/backends?status=odd", "/console/backends/nobody"):
            page = await visitor.get(path)
            assert "default-src 'self'" in page.headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
            assert "unsafe" not in page.headers["Content-Security-Policy"]
            assert page.headers["X-Content-Type-Options"] == "nosniff"
            is_static = path in static
            assert ("immutable" if is_static else "no-store") in page.headers["Cache-Control"]
            assert is_static or re.search(r"<style|<script(?! src)| style=| on[a-z]+=", page.text) is None, path
        async with visitor.http.get(visitor.base + "/console/live/overview") as stream:
            assert "default-src 'self'" in stream.headers["Content-Security-Policy"]
            assert stream.headers["Cache-Control"] == "no-store"
        of_another_version = await visitor.get("/console/static/0/console.css")
        assert (of_another_version.status, of_another_version.headers["Cache-Control"]) == (200, "no-store")
        assert (await visitor.get("/console/static/0/nothing.css")).status == 404


async def test_errors_are_pages(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, console_visitor(api.base) as visitor:
        for path, status, text in (
            ("/console/backends/nobody", 404, "Backend does not exist"),
            ("/console/nothing", 404, "no such page"),
            ("/console/backends?status=odd", 400, "query parameter status"),
            ("/console/backends?after=1", 400, "start at its first page"),
            ("/console/live/backends?ids=a%20b", 400, "query parameter ids"),
        ):
            page = await visitor.get(path)
            assert (page.status, text in page.text, "<h1>" in page.text) == (status, True, True), path


async def test_html_in_data_is_shown_as_text(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        console_visitor(api.base) as visitor,
        fake_drone(api.base) as drone,
        fake_proxy(api.base),
    ):
        request = {"key": {"name": HOSTILE, "namespace": "<b>", "tag": "<i>"}, "user": HOSTILE}
        backend = (await api.connect(**request, spawn_config=SPAWN))["backend_id"]
        state = {"status": "terminated", "last_status": "scheduled", "exit_code": 1, "message": HOSTILE}
        listed = await visitor.get("/console/backends")
        before = await visitor.get(f"/console/backends/{backend}")
        await drone.send("BackendEvent", {"event_id": 1, "backend_id": backend, "state": state, "timestamp": 1})
        await drone.receive("AckEvent")
        pages = [listed, before, await visitor.get(f"/console/backends/{backend}")]
        pages.append(await visitor.get("/console/backends?status=all&q=%3Cscript%3E"))
        for page in pages:
            assert page.status == 200
            assert "&lt;script&gt;alert(" in page.text
            for raw in ("<img src=x", "<script>", "<b>", "<i>"):
                assert raw not in page.text
        assert "exit code 1" in pages[-1].text


async def add_backends(db: str, count: int, status: str = "ready", per_second: int = 1) -> None:
    """Insert backends with keys as a controller does, on the drone ``dr-fake``.

    ``per_second``: so many have the same status time.
    """
    connection = await asyncpg.connect(db)
    try:
        await connection.execute(
            """
            WITH given AS (
                SELECT number, $2 || '-' || lpad(number::text, 6, '0') AS id FROM generate_series(1, $1::int) AS number
            ), made AS (
                INSERT INTO backend (
                    id, cluster, last_status, last_status_time, last_status_number, drone_id, last_keepalive, state
                )
                SELECT id, $3, $2, now() - number / $4::int * interval '1 second',
                    CASE $2 WHEN 'ready' THEN 50 ELSE 70 END,
                    (SELECT node.id FROM node WHERE name = 'dr-fake'), now(),
                    jsonb_build_object('status', $2::text, 'address', '10.0.0.1:1', 'last_status', 'ready')
                FROM given RETURNING id
            ), keyed AS (
                INSERT INTO backend_key (id, namespace, key_name, tag, expires_at, fencing_token)
                SELECT id, '', 'key ' || id, '', now() + interval '1 hour', 1 FROM made WHERE $2 = 'ready' RETURNING id
            )
            INSERT INTO backend_action (id, backend_id, drone_id, acked_at, action)
            SELECT 'ac-' || id, id, (SELECT node.id FROM node WHERE name = 'dr-fake'), now(),
                jsonb_build_object('action', jsonb_build_object('Spawn', jsonb_build_object('key', jsonb_build_object(
                    'key', jsonb_build_object('name', 'key ' || id, 'namespace', '', 'tag', '')))))
            FROM made
            """,
            count,
            status,
            CLUSTER,
            per_second,
        )
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


async def test_ten_thousand_backends_are_shown_in_small_pages(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base), console_visitor(api.base) as visitor:
        await add_backends(postgres_url, 10_000, per_second=7)
        page = await visitor.get("/console/backends")
        addresses = set(re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page.text))
        assert page.size + sum([(await visitor.get(address)).size for address in addresses]) < 150_000
        overview = await visitor.get("/console")
        assert "10,000" in overview.text
        seen: list[str] = []
        path: str | None = "/console/backends"
        while path is not None:
            page = await visitor.get(path)
            seen += re.findall(r'<a class="id" href="/console/backends/([^"]+)"', page.text)
            following = re.search(r'href="([^"]+)" rel="next"', page.text)
            path = None if following is None else following[1].replace("&amp;", "&")
        assert len(seen) == len(set(seen)) == 10_000


async def test_backends_are_found_by_key_id_status_drone_and_cluster(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, fake_drone(api.base), console_visitor(api.base) as visitor:
        await add_backends(postgres_url, 120)
        await add_backends(postgres_url, 120, "terminated")

        async def found(query: str) -> list[str]:
            page = await visitor.get(f"/console/backends?{query}")
            return re.findall(r'<a class="id" href="/console/backends/([^"]+)"', page.text)

        assert await found("q=KEY%20ready-000007") == ["ready-000007"]
        assert await found("q=ready-00001") == [f"ready-00001{digit}" for digit in range(10)]
        assert await found("q=000007&status=all") == ["terminated-000007", "ready-000007"]
        assert await found("q=key%20terminated-0001&status=terminated") == [f"terminated-0001{n:02}" for n in range(21)]
        assert await found("q=terminated-000007") == []
        assert await found("q=%25") == []
        assert len(await found("status=terminated")) == 50
        assert await found("status=loading") == []
        assert len(await found("drone=dr-fake")) == 50
        assert await found("drone=dr-other") == []
        assert await found("cluster=other") == []
        assert len(await found(f"cluster={CLUSTER}")) == 50


async def test_streams_bring_changes_to_open_pages(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        console_visitor(api.base) as visitor,
        fake_drone(api.base) as drone,
    ):
        backend = (await api.connect(key={"name": "k"}, spawn_config=SPAWN))["backend_id"]
        states = asyncio.create_task(visitor.events(f"/console/live/backends?ids={backend},nobody", "ready"))
        detail = asyncio.create_task(visitor.events(f"/console/live/backends/{backend}", "10.1.2.3:4"))
        overview = asyncio.create_task(visitor.events("/console/live/overview", 'data-label="Ready">1'))
        usage = asyncio.create_task(visitor.events(f"/console/live/backends/{backend}", "event: usage"))
        nodes = asyncio.create_task(visitor.events("/console/live/drones", "draining"))
        state = {"status": "ready", "address": "10.1.2.3:4"}
        await drone.send("BackendEvent", {"event_id": 1, "backend_id": backend, "state": state, "timestamp": 1})
        await drone.receive("AckEvent")
        await api.call("POST", f"/ctrl/c/{CLUSTER}/d/dr-fake/drain")
        metrics = dict.fromkeys(("mem_used", "mem_total", "mem_active", "mem_inactive", "mem_unevictable"), 7)
        metrics |= {"mem_limit": 9, "cpu_used": 1, "sys_cpu": 4}
        async with asyncio.timeout(30):
            assert f'id="status-{backend}" hx-swap-oob="true"' in await states
            assert "<strong>ready</strong>" in await detail
            await overview
            await nodes
            while not usage.done():
                await drone.send("BackendMetrics", {"backend_id": backend, **metrics})
                await asyncio.wait([usage], timeout=0.2)
        assert re.search(r"event: usage\ndata: \[[0-9.]+,7,0.25\]\n", usage.result())


async def test_the_overview_counts_starts_ends_and_failures(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url) as api,
        console_visitor(api.base) as visitor,
        fake_drone(api.base) as drone,
    ):
        ends: tuple[dict[str, Any], ...] = ({"exit_code": 0}, {"exit_code": 9}, {"reason": "lost"})
        for number, state in enumerate(ends):
            backend = (await api.connect(key={"name": f"k{number}"}, spawn_config=SPAWN))["backend_id"]
            ended = {"status": "terminated", "last_status": "scheduled", **state}
            event = {"event_id": number, "backend_id": backend, "state": ended, "timestamp": 1}
            await drone.send("BackendEvent", event)
            await drone.receive("AckEvent")
        await visitor.events("/console/live/overview", "3 started, 3 ended")
        assert "2 of 3 ends" in (await visitor.get("/console")).text


async def test_a_table_that_is_locked_is_an_error_page_and_a_notice(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, console_visitor(api.base) as visitor:
        blocker = await asyncpg.connect(postgres_url)
        try:
            async with blocker.transaction():
                await blocker.execute("LOCK TABLE node IN ACCESS EXCLUSIVE MODE")
                page = await visitor.get("/console/drones")
                assert page.status == 503
                assert "another session of the database holds a lock" in page.text
                assert "<h1>Not available</h1>" in page.text
                await visitor.events("/console/live/drones", "Not up to date: another session of the database holds")
        finally:
            await blocker.close()
        assert (await visitor.get("/console/drones")).status == 200


async def test_the_console_is_no_part_of_the_api_s_description(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        _, document = await api.call("GET", "/ctrl/openapi.json")
        assert not [path for path in document["paths"] if path.startswith("/console")]


async def test_events_are_listed_by_type_and_key_and_paged(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, console_visitor(api.base) as visitor, fake_drone(api.base):
        ids = [(await api.connect(key={"name": f"k{n}"}, spawn_config=SPAWN))["backend_id"] for n in range(60)]

        async def shown(path: str) -> list[str]:
            page = await visitor.get(path)
            assert page.status == 200, page.text
            return re.findall(r'<a class="id" href="/console/backends/([^"]+)"', page.text)

        first = await shown("/console/events?kind=backend.scheduled")
        assert first == ids[:9:-1]
        page = await visitor.get("/console/events?kind=backend.scheduled")
        older = re.search(r'href="([^"]+)" rel="next"', page.text)
        assert older is not None
        assert await shown(older[1].replace("&amp;", "&")) == ids[9::-1]
        assert await shown("/console/events?key=k7") == [ids[7]]
        assert await shown("/console/events?kind=drone.connected") == []
        assert "drone.connected" in (await visitor.get("/console/events?kind=drone.connected")).text
        page = await visitor.get("/console/events")
        live = re.search(r'data-live="([^"]+)"', page.text)
        assert live is not None
        await api.connect(key={"name": "later"}, spawn_config=SPAWN)
        await visitor.events(live[1].replace("&amp;", "&"), "1 newer")
        for query in ("kind=admin.drain", "kind=x", "before=0", "key=%00"):
            assert (await visitor.get(f"/console/events?{query}")).status == 400, query


async def test_changes_in_the_console_are_in_the_audit_log_with_the_name_of_the_key(
    postgres_url: str, key_file: Path
) -> None:
    async with (
        signed_in(postgres_url, key_file, Role.ADMIN, Role.CONNECT, Role.READ) as (api, admin, connect, read),
        obedient_drone(api.base),
    ):
        backend = (await api.connect(key={"name": "k"}, user=HOSTILE, spawn_config=SPAWN))["backend_id"]
        await admin.post(f"/console/drones/{CLUSTER}/dr-fake/drain")
        await connect.post(f"/console/backends/{backend}/revoke", user=HOSTILE)
        await connect.post(f"/console/backends/{backend}/terminate", kind="hard")
        page = await admin.get("/console/audit")
        calls = re.findall(r'data-label="Call">(\w+)</th><td data-label="API key">([\w-]+)</td>', page.text)
        assert calls == [("terminate", "the-connect"), ("revoke", "the-connect"), ("drain", "the-admin")]
        assert "127.0.0.1" in page.text
        assert "<img src=x" not in page.text
        assert "admin.drain" in (await admin.get("/console/audit?kind=admin.drain")).text
        for visitor in (connect, read):
            for path in ADMIN_PAGES:
                assert (await visitor.get(path)).status == 403
                assert f'href="{path}"' not in (await visitor.get("/console")).text
        assert "admin." not in (await read.get("/console/events")).text


async def test_webhooks_are_listed_with_their_last_error_and_without_secrets(postgres_url: str) -> None:
    async with (
        controller_api(postgres_url, webhook_allowed_networks=(ipaddress.ip_network("127.0.0.0/8"),)) as api,
        console_visitor(api.base) as visitor,
        fake_drone(api.base),
    ):
        assert "There is no webhook" in (await visitor.get("/console/webhooks")).text
        body = {"url": f"http://127.0.0.1:{free_port()}/hook?token=secret-of-the-url", "types": ["backend.*"]}
        status, made = await api.call("PUT", "/ctrl/webhooks/billing", body)
        assert status == 200, made
        await api.connect(key={"name": "k"}, spawn_config=SPAWN)
        text = await visitor.events("/console/live/webhooks", "failing")
        page = await visitor.get("/console/webhooks")
        for shown in (text, page.text):
            assert "billing" in shown
            assert "secret-of-the-url" not in shown
            assert made["secret"] not in shown
