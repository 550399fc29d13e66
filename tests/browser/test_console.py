"""The console in Chromium: every page at two widths, light and dark, by keyboard alone, and checked by axe-core.

With `PLANE_SCREENSHOTS=docs/how-to/console` (`make screenshots`) the pages are also photographed for the documentation.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from harness import real_parts
from harness.clusters import Cluster, dev_cluster, until

ROOT = Path(__file__).parents[2]
AXE = ROOT / ".venv/applications/node/node_modules/axe-core/axe.min.js"
HOSTILE = "<img src=x onerror=alert(1)>"
LIMIT_MS = 30_000
# One cluster and one browser serve all of them.
pytestmark = [pytest.mark.xdist_group("console"), pytest.mark.timeout(180)]
expect.set_options(timeout=LIMIT_MS)

TALKER = """
import os, threading, time, http.server
server = http.server.HTTPServer(("0.0.0.0", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
number = 0
while True:
    number += 1
    print(f"request {number} handled in {number * 7 % 23} ms", flush=True)
    if number == 3:
        print("<img src=x onerror=alert(1)>", flush=True)
    time.sleep(0.5)
"""


def talker(key: str, user: str = "ada") -> dict[str, Any]:
    executable = {"command": ["python3", "-c", TALKER], "isolation": "none"}
    spawn = {"executable": executable, "max_idle_seconds": 600}
    return {"key": {"name": key, "namespace": "notebooks"}, "user": user, "spawn_config": spawn}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dev_cluster(tmp_path_factory.mktemp("dev"), "--runtime", "process") as made:
        for key in ("analysis-of-2026", "budget", HOSTILE):
            backend = made.connect(**talker(key, user=HOSTILE if key == HOSTILE else "ada"))["backend_id"]
            made.until_status(backend, "ready")
        failing = {"executable": {"command": ["sh", "-c", "echo cannot open model.bin; exit 3"], "isolation": "none"}}
        ended = made.connect(key={"name": "training", "namespace": "notebooks"}, spawn_config=failing)["backend_id"]
        made.until_status(ended, "terminated")
        hook = {"url": "https://billing.example.com/plane", "types": ["backend.terminated"]}
        assert made.call("PUT", "/ctrl/webhooks/billing", hook).status == 200
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        real_parts.missing("Chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def signed_in(browser: Browser, cluster: Cluster, width: int = 1280, scheme: Any = "light") -> Iterator[Page]:
    """A page of a browser that has signed in; nothing may be logged as an error in it, and no dialog may open."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(f"{cluster.control_urls[0]}/console")
    page.get_by_label("API key").fill(cluster.api_key or "")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console")
    try:
        yield page
    finally:
        context.close()
    assert problems == []


def id_of(cluster: Cluster, key: str) -> str:
    found = cluster.call("GET", "/ctrl/backends?status=all").json()["backends"]
    return str(next(backend["id"] for backend in found if backend["key"]["name"] == key))


def violations(page: Page) -> list[str]:
    """What axe-core finds. It is evaluated by the debugger: the page's own policy lets no script in."""
    if not AXE.exists():
        real_parts.missing("axe-core (scripts/install_applications.sh)")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{each['id']}: {node['html'][:200]}" for each in found["violations"] for node in each["nodes"]]


# Words of tables that are on more than one line although they are short.
BROKEN_WORDS = """
() => {
  const broken = [];
  const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT,
    node => node.parentElement.closest("td, tbody th") ? NodeFilter.FILTER_ACCEPT : NodeFilter.FILTER_REJECT);
  while (texts.nextNode()) {
    for (const word of texts.currentNode.data.matchAll(/[^\\s-]+/g)) {
      const range = document.createRange();
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      if (word[0].length < 15 && new Set([...range.getClientRects()].map(box => box.top)).size > 1)
        broken.push(word[0]);
    }
  }
  return broken;
}
"""


def look(page: Page, name: str, width: int, scheme: str, folder: Path) -> None:
    """Check the page as it is, and keep a picture of it."""
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "wider than the window"
    assert page.evaluate(BROKEN_WORDS) == []
    target = os.environ.get("PLANE_SCREENSHOTS")
    wanted = {("backends", 1280, "light"), ("overview", 1280, "light"), ("drones", 1280, "light")}
    wanted |= {("backend", 1280, "dark"), ("backends", 360, "dark"), ("sign-in", 1280, "light")}
    wanted |= {("events", 1280, "light"), ("audit", 1280, "light")}
    if target and (name, width, scheme) in wanted:
        page.set_viewport_size({"width": width, "height": 800 if width > 400 else 700})
        page.screenshot(path=ROOT / target / f"{name}{'-narrow' if width < 400 else ''}.png")
    page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)


LOOKS = [(width, scheme) for width in (1280, 360) for scheme in ("light", "dark")]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_page_is_accessible_and_fits(
    width: int, scheme: str, browser: Browser, cluster: Cluster, tmp_path: Path
) -> None:
    with signed_in(browser, cluster, width, scheme) as page:
        base = f"{cluster.control_urls[0]}/console"
        expect(page.locator("#activity canvas")).to_be_visible()
        expect(page.locator(".stats")).to_contain_text("Ready")
        look(page, "overview", width, scheme, tmp_path)
        page.goto(f"{base}/backends?status=all")
        expect(page.get_by_role("cell").filter(has_text=HOSTILE)).to_be_visible()
        look(page, "backends", width, scheme, tmp_path)
        page.goto(f"{base}/backends?q=nothing-like-it")
        look(page, "no-backends", width, scheme, tmp_path)
        page.goto(f"{base}/backends/{id_of(cluster, HOSTILE)}")
        expect(page.locator("#output")).to_contain_text(HOSTILE)
        expect(page.locator("#usage-text")).to_contain_text("MiB of memory")
        look(page, "hostile", width, scheme, tmp_path)
        page.goto(f"{base}/backends/{id_of(cluster, 'analysis-of-2026')}")
        expect(page.locator("#output")).to_contain_text("request 5 handled")
        expect(page.locator("#usage-text")).to_contain_text("MiB of memory")
        look(page, "backend", width, scheme, tmp_path)
        page.goto(f"{base}/backends/{id_of(cluster, 'training')}")
        expect(page.locator(".timeline")).to_contain_text("exit code other than 0")
        expect(page.locator("#output-text")).to_contain_text("The backend has ended")
        look(page, "ended", width, scheme, tmp_path)
        page.goto(f"{base}/drones")
        expect(page.get_by_role("row").filter(has_text="dr-dev-process")).to_contain_text("ready")
        look(page, "drones", width, scheme, tmp_path)
        page.goto(f"{base}/events")
        expect(page.get_by_role("row").filter(has_text="backend.terminated").first).to_contain_text("training")
        look(page, "events", width, scheme, tmp_path)
        page.goto(f"{base}/audit")
        expect(page.get_by_role("row").filter(has_text="webhook_set").first).to_contain_text("dev")
        look(page, "audit", width, scheme, tmp_path)
        page.goto(f"{base}/webhooks")
        expect(page.get_by_role("row").filter(has_text="billing")).to_be_visible()
        look(page, "webhooks", width, scheme, tmp_path)
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sign-in")
        look(page, "sign-in", width, scheme, tmp_path)


def test_a_change_that_does_not_arrive_is_a_notice(browser: Browser, cluster: Cluster) -> None:
    page = browser.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    # Before the page is loaded: Chromium may not intercept requests of a page that it is loading.
    page.route("**/drain", lambda route: route.abort())
    page.goto(f"{cluster.control_urls[0]}/console/drones")
    page.get_by_label("API key").fill(cluster.api_key or "")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name=re.compile("^Drain")).click()
    expect(page.get_by_role("alert")).to_contain_text("nothing was changed")
    page.close()


def test_a_live_page_keeps_its_rows_where_they_are(browser: Browser, cluster: Cluster) -> None:
    with signed_in(browser, cluster) as page:
        backend = cluster.connect(**talker("moves"))["backend_id"]
        cluster.until_status(backend, "ready")
        page.goto(f"{cluster.control_urls[0]}/console/backends")
        before = page.locator("a.id").all_inner_texts()
        assert backend in before
        page.evaluate(
            "window.shifted = 0;"
            "const add = list => list.getEntries().forEach(entry => window.shifted += entry.value);"
            "const observer = new PerformanceObserver(add);"
            "observer.observe({type: 'layout-shift', buffered: true})"
        )
        later = cluster.connect(**talker("later"))["backend_id"]
        cluster.call("POST", f"/ctrl/b/{backend}/hard-terminate")
        expect(page.locator(f"#status-{backend}")).to_contain_text("terminated · external")
        assert page.locator("a.id").all_inner_texts() == before
        assert page.evaluate("window.shifted") < 0.01
        page.reload()
        assert page.locator("a.id").all_inner_texts()[0] == later


def test_a_hidden_page_closes_its_streams_and_catches_up(browser: Browser, cluster: Cluster) -> None:
    with signed_in(browser, cluster) as page:
        backend = cluster.connect(**talker("hidden"))["backend_id"]
        cluster.until_status(backend, "ready")
        page.goto(f"{cluster.control_urls[0]}/console/backends")
        expect(page.locator(f"#status-{backend}")).to_contain_text("ready")
        with page.expect_event("requestfailed"):
            page.evaluate(
                "Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});"
                "document.dispatchEvent(new Event('visibilitychange'))"
            )
        cluster.call("POST", f"/ctrl/b/{backend}/hard-terminate")
        cluster.until_status(backend, "terminated")
        assert "ready" in page.locator(f"#status-{backend}").inner_text()
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.locator(f"#status-{backend}")).to_contain_text("terminated")


def press_until(page: Page, key: str, name: str) -> None:
    """Press a key until the focus is on the control with this name."""
    script = "document.activeElement.innerText || document.activeElement.labels?.[0]?.innerText || ''"
    for _ in range(60):
        if re.match(name, page.evaluate(script).strip()):
            return
        page.keyboard.press(key)
    pytest.fail(f"the keyboard does not reach {name}")


def test_everything_works_by_keyboard(browser: Browser, cluster: Cluster) -> None:
    backend = cluster.connect(**talker("by-keyboard", user="grace"))["backend_id"]
    cluster.until_status(backend, "ready")
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(f"{cluster.control_urls[0]}/console/backends")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(cluster.api_key or "")
    page.keyboard.press("Enter")
    page.wait_for_url("**/backends")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    press_until(page, "Tab", "Key or id")
    page.keyboard.type("by-key")
    page.keyboard.press("Enter")
    page.wait_for_url("**/backends?q=by-key*")
    press_until(page, "Tab", backend)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/backends/{backend}")
    expect(page.locator("#usage-text")).to_contain_text("MiB of memory")
    press_until(page, "Tab", "Revoke")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("1 tokens of grace were revoked")
    press_until(page, "Shift+Tab", "Terminate")
    page.keyboard.press("Enter")
    expect(page.locator("#backend")).to_contain_text("reason: external")
    expect(page.locator("#backend .badge")).to_contain_text("terminated")
    press_until(page, "Shift+Tab", "Drones")
    page.keyboard.press("Enter")
    page.wait_for_url("**/drones")
    press_until(page, "Tab", "Drain")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Undrain")).to_be_visible()
    press_until(page, "Tab", "Undrain")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Drain"))).to_be_visible()
    page.close()


def test_open_leads_to_the_backend_in_a_tab_of_its_own(browser: Browser, cluster: Cluster) -> None:
    with signed_in(browser, cluster) as page:
        page.goto(f"{cluster.control_urls[0]}/console/backends/{id_of(cluster, 'budget')}")
        with page.context.expect_page() as opened:
            page.get_by_role("button", name="Open").click()
        opened.value.wait_for_url(re.compile(rf"http://localhost:{cluster.proxy_port}/.+"))


def test_the_front_page_of_plane_dev_leads_to_the_console(browser: Browser, cluster: Cluster) -> None:
    page = browser.new_page()
    page.goto(cluster.control_urls[0])
    page.get_by_role("link", name="Console").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.close()


def test_a_link_on_another_site_opens_the_page_with_its_session(browser: Browser, cluster: Cluster) -> None:
    with signed_in(browser, cluster) as page:
        target = f"{cluster.control_urls[0]}/console/drones"
        page.route("http://elsewhere.example/", lambda route: route.fulfill(body=f'<a href="{target}">it</a>'))
        page.goto("http://elsewhere.example/")
        page.get_by_role("link").click()
        expect(page.get_by_role("heading", name="Drones", exact=True)).to_be_visible()


def test_output_of_a_long_life_does_not_grow_the_page(browser: Browser, cluster: Cluster) -> None:
    flood = "import time\nfor n in range(6000): print(n)\nprint('done', flush=True)\ntime.sleep(600)"
    executable = {"command": ["python3", "-c", flood], "isolation": "none"}
    spawn = {"executable": executable, "max_idle_seconds": 600}
    backend = cluster.connect(key={"name": "flood"}, spawn_config=spawn)["backend_id"]
    with signed_in(browser, cluster) as page:
        page.goto(f"{cluster.control_urls[0]}/console/backends/{backend}")
        expect(page.locator("#output")).to_contain_text("done")
        until(lambda: page.locator("#output > div").count() <= 2000)
