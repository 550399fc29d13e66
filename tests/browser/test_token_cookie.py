"""A token in a cookie, as Chromium treats it: the first visit, and what sibling subdomains and other sites can do."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page, sync_playwright

from harness.clusters import Cluster, dev_cluster

DOMAIN = "plane.test"
# One cluster serves all of them.
pytestmark = pytest.mark.xdist_group("token_cookie")
# Counts what reaches /act, in any way, and shows what it is sent.
BACKEND = """
import http.server, os
acts = []
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        path = self.path.partition("?")[0]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/act":
            acts.append(self.command)
        body = {"/acts": ",".join(acts), "/seen": str(self.headers)}.get(path, "<title>the session</title>").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Elsewhere(BaseHTTPRequestHandler):
    """A page of another site with nothing on it."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>elsewhere</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


class Opened(NamedTuple):
    page: Page
    # URLs with their tokens, and whether the browser sends fetch metadata.
    victim: str
    evil: str
    has_metadata: bool


class Surroundings(NamedTuple):
    rules: str
    victim: str
    evil: str


def start(cluster: Cluster, subdomain: str) -> str:
    executable = {"command": [sys.executable, "-c", BACKEND]}
    answer = cluster.connect(
        spawn_config={"executable": executable, "subdomain": subdomain, "token_in_cookie": True}, user="ann"
    )
    return f"http://{subdomain}.{DOMAIN}/{answer['token']}"


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """Two sessions on sibling subdomains, and another site; the rules by which a browser finds them."""
    elsewhere = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
    folder = tmp_path_factory.mktemp("dev")
    with dev_cluster(folder, "--runtime", "process", "--public-host", DOMAIN) as cluster:
        rules = f"MAP *.{DOMAIN} 127.0.0.1:{cluster.proxy_port},MAP elsewhere.test 127.0.0.1:{elsewhere.server_port}"
        yield Surroundings(rules, start(cluster, "victim"), start(cluster, "evil"))
    elsewhere.shutdown()
    elsewhere.server_close()


@pytest.fixture(params=[False, True], ids=["plain", "with fetch metadata"])
def opened(request: pytest.FixtureRequest, chromium: str, surroundings: Surroundings) -> Iterator[Opened]:
    """A browser without cookies. Chromium sends fetch metadata to secure origins only."""
    arguments = ["--no-sandbox", f"--host-resolver-rules={surroundings.rules}"]
    if request.param:
        arguments.append(f"--unsafely-treat-insecure-origin-as-secure=http://victim.{DOMAIN},http://evil.{DOMAIN}")
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=arguments)
        yield Opened(browser.new_page(), surroundings.victim, surroundings.evil, request.param)
        browser.close()


def acts(page: Page) -> list[str]:
    page.goto(f"http://victim.{DOMAIN}/acts")
    return page.inner_text("body").split(",") if page.inner_text("body") else []


ATTACKS = """async (victim) => {
  const settled = [
    fetch(`${victim}/act`, { method: 'POST', mode: 'no-cors', credentials: 'include' }),
    fetch(`${victim}/act`, { method: 'POST', credentials: 'include' }),
    new Promise((resolve) => {
      const socket = new WebSocket(`${victim.replace('http', 'ws')}/act`);
      socket.onopen = socket.onerror = resolve;
    }),
    new Promise((resolve) => {
      const frame = document.createElement('iframe');
      frame.name = 'frame';
      document.body.appendChild(frame);
      const form = document.body.appendChild(document.createElement('form'));
      Object.assign(form, { action: `${victim}/act`, method: 'post', target: 'frame' });
      frame.onload = resolve;
      form.submit();
    }),
  ];
  await Promise.allSettled(settled);
}"""
READING_ATTACKS = """async (victim) => {
  await fetch(`${victim}/act`, { mode: 'no-cors', credentials: 'include' }).catch(() => null);
  await new Promise((resolve) => {
    const frame = document.body.appendChild(document.createElement('iframe'));
    frame.onload = resolve;
    frame.src = `${victim}/act`;
  });
}"""


def test_a_link_of_another_site_opens_the_session_and_no_page_reads_the_token(opened: Opened) -> None:
    page = opened.page
    page.goto("http://elsewhere.test/")
    page.evaluate("(url) => { location.href = url }", f"{opened.victim}/start?q=1#part")
    page.wait_for_url(f"http://victim.{DOMAIN}/start?q=1#part")
    assert page.title() == "the session"
    token = opened.victim.rpartition("/")[2]
    assert page.evaluate("document.cookie") == ""
    assert token not in page.evaluate("async () => (await fetch('/seen')).text()")
    assert token not in page.evaluate("document.referrer")
    stored = page.context.cookies()
    assert [(c["name"], c["domain"], c["httpOnly"], c["sameSite"]) for c in stored] == [
        ("plane-token", f"victim.{DOMAIN}", True, "Lax")
    ]


def test_pages_of_other_origins_cannot_act_in_the_session(opened: Opened) -> None:
    page = opened.page
    page.goto(opened.victim)
    before = acts(page)
    assert page.evaluate("async () => (await fetch('/act', { method: 'POST' })).status") == 200
    assert acts(page) == [*before, "POST"]
    victim = f"http://victim.{DOMAIN}"
    for other in (opened.evil, "http://elsewhere.test/"):
        page.goto(other)
        page.evaluate(ATTACKS, victim)
        if opened.has_metadata or other != opened.evil:
            page.evaluate(READING_ATTACKS, victim)
        assert acts(page) == [*before, "POST"]


def test_a_siblings_cookie_leads_nobody_into_the_siblings_session(opened: Opened) -> None:
    page = opened.page
    page.goto(opened.victim)
    page.goto(opened.evil)
    token = opened.evil.rpartition("/")[2]
    page.evaluate("(token) => { document.cookie = `plane-token=${token}; domain=plane.test; path=/` }", token)
    assert len(page.context.cookies(f"http://victim.{DOMAIN}")) == 2
    response = page.goto(f"http://victim.{DOMAIN}/acts")
    assert response is not None
    assert response.status == 410
