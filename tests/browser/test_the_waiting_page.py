"""The page that waits for a backend to start, in Chromium: its script opens what was asked for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from playwright.async_api import async_playwright, expect

from harness.proxy_world import CLUSTER, World, program_world


async def answer_with_a_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A backend whose page says what was asked for."""
    while True:
        method, target, _ = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
        body = b"<!doctype html><title>App</title><p>opened " + target + b"</p>"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head if method == b"HEAD" else head + body)


async def backend_is_ready(it: World, token: str) -> None:
    """The controller answers the question that it was silent about."""
    it.silent = False
    it.add_route(token)
    assert it.controller is not None
    answer = {"RouteInfoResponse": {"token": token, "route_info": it.routes[token]}}
    await it.controller.send_str(json.dumps(answer))


async def test_the_waiting_page_opens_the_app_when_it_is_ready(chromium: str, tmp_path: Path) -> None:
    async with program_world(tmp_path, "--waiting-page") as (it, _), async_playwright() as playwright:
        it.exchange = answer_with_a_page
        it.silent = True
        # The cluster's name has a port that browsers refuse, and the proxy is at another.
        reached_at = f"--host-resolver-rules=MAP localhost 127.0.0.1:{it.port}"
        arguments = ["--no-sandbox", "--explicitly-allowed-ports=9", reached_at]
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = await browser.new_page()
        await page.goto(f"http://{CLUSTER}/starting/deep?q=1#part")
        await expect(page.get_by_role("status")).to_contain_text("Starting")
        await backend_is_ready(it, "starting")
        await expect(page.get_by_text("opened /deep?q=1")).to_be_visible(timeout=20_000)
        assert page.url.endswith("/starting/deep?q=1#part")
        await browser.close()
