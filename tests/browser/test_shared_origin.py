"""Two backends at paths of one host, in Chromium: a service worker of one does not see the visits to the other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from harness.clusters import dev_cluster

# Serves a service worker at every path that a browser asks for as one, allowed for the whole host, cached for an hour.
ATTACKER = """
import http.server, os
WORKER = b"self.addEventListener('fetch', (event) => event.respondWith(new Response('taken over')))"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_page = self.path == "/page"
        body = b"<title>attacker</title>" if is_page else WORKER
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if is_page else "text/javascript")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Service-Worker-Allowed", "/")
        self.send_header("Cache-Control", "max-age=3600")
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
BACKEND = Path(__file__).parents[1] / "harness" / "browser_backend.py"


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def register(page: Page, script: str, scope: str) -> str:
    """Register a service worker, and wait until it is active; return its scope, or the name of the error."""
    result: Any = page.evaluate(
        """async ([script, scope]) => {
          try {
            const registration = await navigator.serviceWorker.register(script, { scope, updateViaCache: 'all' });
            const worker = registration.installing ?? registration.waiting ?? registration.active;
            if (worker.state !== 'activated') await new Promise((resolve) => {
              worker.onstatechange = () => worker.state === 'activated' && resolve();
            });
            return registration.scope;
          } catch (error) { return error.name; }
        }""",
        [script, scope],
    )
    return str(result)


def test_a_service_worker_serves_its_own_backend_only(page: Page, tmp_path: Path) -> None:
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        attacker = cluster.connect(spawn_config={"executable": {"command": [sys.executable, "-c", ATTACKER]}})["url"]
        victim = cluster.connect(spawn_config={"executable": {"command": [sys.executable, str(BACKEND)]}})["url"]
        page.goto(f"{attacker}page")
        assert page.title() == "attacker"

        # Its script is below the token, and its response allows the whole host.
        assert register(page, f"{attacker}worker.js", "/") == "SecurityError"
        # The script is the token itself, without a slash: its folder is the whole host. From the cache as well.
        bare = attacker.rstrip("/")
        page.evaluate("async (url) => { await fetch(url) }", bare)
        assert register(page, bare, "/") == "SecurityError"
        assert register(page, f"{bare}?x", "/") == "SecurityError"
        page.goto(victim)
        assert page.title() == "parts"
        assert "taken over" not in page.content()

        # Its own visits it may serve.
        page.goto(f"{attacker}page")
        assert register(page, f"{attacker}deep/worker.js", f"{attacker}deep/") == f"{attacker}deep/"
        assert register(page, bare, attacker) == attacker
        page.goto(f"{attacker}page")
        assert "taken over" in page.content()
        page.goto(victim)
        assert page.title() == "parts"


def test_no_other_site_is_told_the_token_and_the_own_backend_gets_a_referer(page: Page, tmp_path: Path) -> None:
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        url = cluster.connect(spawn_config={"executable": {"command": [sys.executable, str(BACKEND)]}})["url"]
        token = url.rstrip("/").rpartition("/")[2]
        page.goto(url)
        # The oldest browsers sent the whole address by default; a page can still ask for that.
        assert page.evaluate("async () => (await fetch('deep/page')).headers.get('referrer-policy')") == "same-origin"
        facts = page.evaluate("async () => (await fetch('deep/page')).json()")
        assert facts["referer"] == url.replace(f"/{token}/", "/")
        # Another origin: the same machine under its other name.
        names = ["localhost", "127.0.0.1"]
        other = url.replace(*(names if "localhost" in url else names[::-1]))
        with page.expect_request(other) as sent:
            page.evaluate("async (url) => { await fetch(url, { mode: 'no-cors' }).catch(() => null) }", other)
        # Chromium names an empty one where it sends none.
        assert sent.value.all_headers().get("referer", "") == ""
