"""Chromium through the proxy, in every way in which a page talks to its server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from harness.clusters import Cluster, dev_cluster

BACKEND = Path(__file__).parents[1] / "harness" / "browser_backend.py"


@pytest.fixture
def opened(chromium: str, tmp_path: Path) -> Iterator[tuple[Cluster, Page, str]]:
    """A cluster, a page of its backend, and the page's URL."""
    with dev_cluster(tmp_path, "--runtime", "process") as cluster, sync_playwright() as playwright:
        answer = cluster.connect(spawn_config={"executable": {"command": [sys.executable, str(BACKEND)]}}, user="ann")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(answer["url"])
        yield cluster, page, answer["url"]
        browser.close()


def run(page: Page, script: str) -> Any:
    """The value of an async function's body in the page."""
    return page.evaluate(f"async () => {{ {script} }}")


def test_every_way_in_which_a_page_talks_to_its_server(opened: tuple[Cluster, Page, str]) -> None:
    _, page, url = opened
    token = url.rstrip("/").rpartition("/")[2]

    # Relative links, cookies, and who the user is.
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(1, 2, 3)"
    page.click("#relative")
    assert page.url == f"{url}deep/page"
    facts = run(page, "return JSON.parse(document.body.innerText)")
    assert facts["path"] == "/deep/page"
    assert facts["cookies"] == {"session": "a-cookie"}
    assert facts["user"] == "ann"
    assert facts["referer"] is not None
    assert token not in facts["referer"]
    page.go_back()

    # fetch, with a method and a body of one's own.
    put = run(page, "return (await fetch('upload', { method: 'PUT', body: 'hello' })).json()")
    assert put == {"method": "PUT", "bytes": 5}

    # An upload of 50 MiB, with progress.
    sent = run(
        page,
        """
        const body = new Blob([new Uint8Array(50 * 1024 * 1024)]);
        return await new Promise((resolve, reject) => {
          const request = new XMLHttpRequest();
          let steps = 0;
          request.upload.onprogress = () => { steps += 1; };
          request.onload = () => resolve({ steps, answer: JSON.parse(request.responseText) });
          request.onerror = reject;
          request.open('POST', 'upload');
          request.send(body);
        });
        """,
    )
    assert sent["answer"]["bytes"] == 50 * 1024 * 1024
    # How many there are depends on how fast the bytes went.
    assert sent["steps"] >= 1

    # A streamed download.
    got = run(
        page,
        """
        const reader = (await fetch('download')).body.getReader();
        let pieces = 0, bytes = 0;
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return { pieces, bytes };
          pieces += 1; bytes += value.length;
        }
        """,
    )
    assert got["bytes"] == 64 * 65536
    assert got["pieces"] > 1

    # Server-sent events.
    events = run(
        page,
        """
        return await new Promise((resolve) => {
          const source = new EventSource('events'), got = [];
          source.onmessage = (event) => {
            got.push(event.data);
            if (got.length === 3) { source.close(); resolve(got); }
          };
        });
        """,
    )
    assert events == ["event 0", "event 1", "event 2"]

    # A WebSocket, with a subprotocol, text, and a large binary message.
    echoed = run(
        page,
        """
        return await new Promise((resolve, reject) => {
          const socket = new WebSocket(new URL('socket', location).href.replace('http', 'ws'), ['parts']);
          const got = [];
          socket.binaryType = 'arraybuffer';
          socket.onerror = reject;
          socket.onopen = () => { socket.send('héllo'); socket.send(new Uint8Array(3_000_000)); };
          socket.onmessage = (event) => {
            got.push(typeof event.data === 'string' ? event.data : event.data.byteLength);
            if (got.length < 2) return;
            socket.onclose = (end) => resolve([socket.protocol, end.code, ...got]);
            socket.close(1000);
          };
        });
        """,
    )
    assert echoed == ["parts", 1000, "héllo", 3_000_000]


def test_a_person_sees_a_page_when_the_session_has_ended(opened: tuple[Cluster, Page, str]) -> None:
    _, page, url = opened
    page.goto(url.replace(url.rstrip("/").rpartition("/")[2], "x" * 43))
    assert page.title() == "This session has ended"
    assert page.get_by_role("heading", name="This session has ended").is_visible()
