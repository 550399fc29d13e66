"""The site of the documentation in Chromium: no error, fit for a telephone and for the dark, nothing from elsewhere."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from harness.site import built_site

ROOT = Path(__file__).parents[2]
# With a diagram, generated tables, code, and long lines.
PAGES_IN_THE_DARK = (
    "",
    "tutorial/production/",
    "concepts/backends/",
    "reference/metrics/",
    "reference/settings/",
    "reference/python-client/",
    "internals/architecture/",
)
DIAGRAMS = {"concepts/backends/": "hard_terminating", "internals/architecture/": "connecting"}
TELEPHONE = {"width": 360, "height": 740}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[str, Path]]:
    """The built site, served; and its folder."""
    folder = built_site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", folder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# All pages, one after the other.
@pytest.mark.timeout(400)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_have_no_error_and_fit_a_telephone(site: tuple[str, Path], chromium: str, scheme: str) -> None:
    base, folder = site
    pages: tuple[str, ...] = PAGES_IN_THE_DARK
    if scheme == "light":
        pages = tuple(str(page.parent.relative_to(folder)) + "/" for page in sorted(folder.rglob("*/index.html")))
        assert len(pages) > 60
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport=TELEPHONE, color_scheme=scheme)  # type: ignore[arg-type]
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(base) else problems.append(request.url))
        page.on("response", lambda response: problems.append(response.url) if response.status >= 400 else None)
        for path in pages:
            page.goto(base + path)
            # Only tables and code scroll sideways, each by itself.
            assert page.evaluate("document.documentElement.scrollWidth") <= TELEPHONE["width"], path
            assert page.locator("h1").count() == 1, path
            if path in DIAGRAMS:
                assert DIAGRAMS[path] in (page.locator("figure.diagram svg").text_content() or "")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") is (scheme == "light")
        browser.close()
    assert problems == []


def test_a_search_for_a_symptom_finds_what_to_do_and_no_decision(site: tuple[str, Path], chromium: str) -> None:
    base, _ = site
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        for words, found in (("stop+backend", "reference/log-messages/"), ("two+processes", "how-to/troubleshoot/")):
            page.goto(f"{base}?q={words}")
            first = page.locator(".md-search-result__link").first
            first.wait_for(state="attached")
            assert (first.get_attribute("href") or "").partition("?")[0].endswith(found), words
        browser.close()


def test_each_page_is_there_as_markdown_and_listed_for_language_models(site: tuple[str, Path]) -> None:
    _, folder = site
    index = (folder / "llms.txt").read_text()
    listed = [line for line in index.splitlines() if line.startswith("- [")]
    assert len(listed) > 40
    for path in PAGES_IN_THE_DARK[1:]:
        assert f"/{path}index.md" in index
        assert (folder / path / "index.md").read_text().startswith("# ")
    assert "At most one process per key" in (folder / "llms-full.txt").read_text()


def test_no_page_is_an_orphan() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation, page
