"""What a person sees and a program reads when there is nothing else: pages, JSON, the waiting page."""

from __future__ import annotations

import asyncio
import json
from html.parser import HTMLParser

import aiohttp
import pytest

from harness.clusters import free_port
from harness.proxy_world import LIMIT_S, get, status, world
from plane.settings import ProxyLimits

BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


class Page(HTMLParser):
    """The tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def body_of(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(("target", "expected"), [(f"/{'x' * 43}/", 410), ("/t/", 502), ("/", 400)])
async def test_a_browser_sees_a_page_and_a_program_reads_json(target: str, expected: int) -> None:
    async with world() as it:
        it.add_route("t", address="127.0.0.1:1")
        page = await it.send(get(target, BROWSER, "Connection: close"))
        said = await it.send(get(target, "Accept: */*", "Connection: close"))
        nothing = await it.send(get(target, BROWSER, "Connection: close", method="HEAD"))
    assert [status(response) for response in (page, said, nothing)] == [expected] * 3
    assert b"\r\nContent-Type: text/html; charset=utf-8\r\n" in page
    assert body_of(nothing) == b""
    read = Page(body_of(page).decode())
    tags = dict(read.tags)
    assert tags["html"] == {"lang": "en"}
    assert {"title", "main", "h1", "p"} <= set(tags)
    # Self-contained: it fetches nothing.
    assert not [attrs for _, attrs in read.tags if "src" in attrs or "href" in attrs]
    assert len(page) < 2_000
    if expected == 410:
        assert body_of(said) == b""
    else:
        assert json.loads(body_of(said))["status"] == expected


async def test_a_client_that_refuses_html_gets_json() -> None:
    async with world() as it:
        response = await it.send(get("/", "Accept: application/json, text/html;q=0", "Connection: close"))
        assert json.loads(body_of(response)) == {"status": 400, "error": "bad request"}


async def test_ready_names_what_is_missing() -> None:
    async with world() as it:
        assert body_of(await it.send(get("/ready", "Connection: close"))) == b"ok\n"
        it.gone = True
        assert it.controller is not None
        await it.controller.close()
        async with asyncio.timeout(LIMIT_S):
            while status(response := await it.send(get("/ready", "Connection: close"))) != 503:
                await asyncio.sleep(0.05)
        assert body_of(response) == b"not connected to a controller\n"


async def test_a_waiting_page_is_shown_to_navigations_that_wait_and_to_nothing_else() -> None:
    async with world(waiting_page=True, limits=ProxyLimits(waiting_page_after_s=0.2)) as it:
        assert status(await it.send(get("/t/", BROWSER, "Connection: close"))) == 200
        it.silent = True
        page = await it.send(get("/starting/", BROWSER, "Connection: close"))
        assert status(page) == 503
        assert "Retry-After" in page.decode()
        assert ("main", {"role": "status", "aria-busy": "true"}) in Page(body_of(page).decode()).tags
        # What the page asks by itself waits for the backend.
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/starting/", "Accept: */*", method="HEAD"))
        await asyncio.sleep(0.5)
        it.silent = False
        it.add_route("starting")
        assert it.controller is not None
        response = {"RouteInfoResponse": {"token": "starting", "route_info": it.routes["starting"]}}
        await it.controller.send_str(json.dumps(response))
        async with asyncio.timeout(LIMIT_S):
            assert status(await reader.readuntil(b"\r\n\r\n")) == 200
        writer.close()


async def test_metrics_have_counts_and_no_tokens() -> None:
    port = free_port()
    token = "a-token-that-nobody-may-read"
    async with world(metrics_port=port) as it, aiohttp.ClientSession() as http:
        it.add_route(token)
        assert status(await it.send(get(f"/{token}/", "Connection: close"))) == 200
        assert status(await it.send(get("/gone/", "Connection: close"))) == 410
        async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
            said = await response.text()
    values = dict(line.rsplit(" ", 1) for line in said.splitlines() if not line.startswith("#"))
    assert float(values['plane_proxy_answers_total{status="4xx"}']) == 1
    # Those of `/ready`, and this one.
    assert float(values['plane_proxy_answers_total{status="2xx"}']) >= 2
    assert float(values["plane_proxy_routes"]) == 1
    assert float(values["plane_proxy_ready"]) == 1
    assert token not in said


async def test_without_the_option_a_navigation_waits() -> None:
    async with world() as it:
        it.silent = True
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/starting/", BROWSER))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 1)
        writer.close()
