"""Pages of others in Chromium, on the machine of a developer: they reach loopback, and the control API refuses them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from harness.clusters import Cluster, dev_cluster, separate_parts

# Resolves to loopback, as a name of the attacker does after rebinding.
REBOUND = "rebound.example"


class _Attacker(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>a page of somebody else</title>")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def attacker() -> Iterator[str]:
    """The URL of a page of another origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Attacker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=["dev", "separate"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """`plane dev`, and a controller without API keys."""
    if request.param == "dev":
        with dev_cluster(tmp_path, "--runtime", "process") as running:
            yield running
    else:
        with separate_parts(request.getfixturevalue("postgres_url"), tmp_path, controllers=1) as running:
            yield running


# Posts as a form does, without a preflight. What came back can be read by pages of the same origin only.
POST = """async ([url, type, body]) => {
    const mode = url.startsWith(location.origin) ? 'same-origin' : 'no-cors';
    const answer = await fetch(url, { method: 'POST', mode, headers: { 'Content-Type': type }, body });
    return answer.status;
}"""
OPENS = """url => new Promise(resolve => {
    const socket = new WebSocket(url);
    socket.onopen = () => resolve(true);
    socket.onerror = () => resolve(false);
})"""


def drone(cluster: Cluster) -> dict[str, Any]:
    (found,) = cluster.call("GET", f"/ctrl/c/localhost:{cluster.proxy_port}/state").json()["drones"]
    return dict(found)


def no_backend(cluster: Cluster) -> bool:
    found: list[Any] = cluster.call("GET", "/ctrl/backends?status=all").json()["backends"]
    return not found


def attack(page: Page, cluster: Cluster, base: str) -> list[int]:
    """Drain the drone, run a command, open sockets as a node; the statuses that the page sees."""
    name = drone(cluster)["node"]["name"]["Drone"]
    path = f"{base}/ctrl/c/localhost:{cluster.proxy_port}"
    spawn = '{"spawn_config": {"executable": {"command": ["touch", "/tmp/owned"]}}}'
    seen = [
        page.evaluate(POST, [f"{path}/d/{name}/drain", "text/plain", ""]),
        page.evaluate(POST, [f"{path}/d/{name}/drain", "application/x-www-form-urlencoded", "a=b"]),
        page.evaluate(POST, [f"{base}/ctrl/connect", "text/plain", spawn]),
        page.evaluate(POST, [f"{base}/dev/open", "text/plain", '{"key": "k"}']),
    ]
    for socket in ("drone-socket", "proxy-socket"):
        assert page.evaluate(OPENS, f"{path.replace('http', 'ws', 1)}/{socket}") is False
    assert page.evaluate(OPENS, f"{base.replace('http', 'ws', 1)}/ctrl/dns-socket") is False
    return seen


def test_a_page_of_another_origin_gets_nothing(cluster: Cluster, browser: Browser, attacker: str) -> None:
    page = browser.new_page()
    page.goto(attacker)
    attack(page, cluster, cluster.control_urls[0])
    assert drone(cluster)["draining"] is False
    assert no_backend(cluster)


def test_dns_rebinding_gets_nothing(cluster: Cluster, browser: Browser) -> None:
    page = browser.new_page()
    base = cluster.control_urls[0].replace("127.0.0.1", REBOUND)
    # A page of the API's own host and port to the browser; the public part answers to any name.
    page.goto(f"{base}/pub/health")
    assert set(attack(page, cluster, base)) <= {401, 403, 404}
    spawn = '{"spawn_config": {"executable": {"command": ["touch", "/tmp/owned"]}}}'
    refused = 403 if cluster.api_key is None else 401
    assert page.evaluate(POST, [f"{base}/ctrl/connect", "application/json", spawn]) == refused
    assert page.evaluate(POST, [f"{base}/dev/open", "application/json", '{"key": "k"}']) in (403, 404)
    for path in ("/", "/ctrl/backends", "/ctrl/status"):
        assert page.evaluate("async url => (await fetch(url)).status", base + path) in (401, 403)
    assert drone(cluster)["draining"] is False
    assert no_backend(cluster)
