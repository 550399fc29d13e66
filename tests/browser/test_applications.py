"""The recipes of docs/how-to/applications, as they stand there, with the real applications and Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from harness import real_parts
from harness.clusters import dev_cluster
from harness.program import PLANE

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/how-to/applications"
INSTALLED = ROOT / ".venv/applications"
LIMIT_S = 60.0
expect.set_options(timeout=LIMIT_S * 1000)
# One cluster and one browser serve all of them.
pytestmark = [pytest.mark.xdist_group("applications"), pytest.mark.timeout(180)]

Recipe = Callable[[str], dict[str, Any]]


def need(program: Path | str) -> None:
    """Fail or skip where a program is missing."""
    if not (program.exists() if isinstance(program, Path) else shutil.which(program)):
        real_parts.missing(f"{program} (scripts/install_applications.sh)")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A checkout as a reader of the recipes has one, with what `npm install` puts there; isolated backends see it."""
    need(INSTALLED / "installed")
    made = Path(tempfile.mkdtemp(prefix="run-", dir=INSTALLED))
    made.chmod(0o755)
    shutil.copytree(ROOT / "examples/applications", made / "examples/applications")
    (made / "node_modules").symlink_to("../node/node_modules")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def recipe(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recipe]:
    """Runs the command of a page; returns what was connected to, ready."""
    path = f"{INSTALLED / 'bin'}:{os.environ['PATH']}"
    with dev_cluster(tmp_path_factory.mktemp("dev"), "--runtime", "process", PATH=path) as cluster:
        assert cluster.api_key is not None
        values = {
            **os.environ,
            "PLANE_CONTROLLER": cluster.control_urls[0],
            "PLANE_CONTROLLER_KEY": cluster.api_key,
        }

        def run(page: str) -> dict[str, Any]:
            (line,) = re.findall(r"```sh\n(\.venv/bin/plane admin connect .*)\n```", (PAGES / page).read_text())
            command = line.replace(".venv/bin/plane", str(PLANE)) + " --json"
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=folder,
                env=values,
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT_S,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            answer: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
            return answer

        yield run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        real_parts.missing("Chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(LIMIT_S * 1000)
    opened = context.new_page()
    # All that the application asks for is answered by the application.
    lost: list[str] = []
    opened.on("response", lambda response: lost.append(response.url) if response.status == 410 else None)
    yield opened
    context.close()
    assert [url for url in lost if not url.endswith("/favicon.ico")] == []


def host_of(url: str) -> str:
    return "/".join(url.split("/")[:3])


def test_jupyterlab_runs_a_cell(recipe: Recipe, page: Page) -> None:
    answer = recipe("jupyterlab.md")
    page.goto(answer["url"])
    page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
    # The kernel has answered through its WebSocket.
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible()
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    page.keyboard.type("6 * 7")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text("42")
    assert page.url.startswith(f"{answer['url']}lab")


def test_fastapi_makes_addresses_below_the_token(recipe: Recipe, page: Page) -> None:
    url = recipe("fastapi.md")["url"]
    page.goto(url)
    page.get_by_text("to the item").click()
    page.wait_for_url(f"{url}items/lamp")
    assert json.loads(page.inner_text("body")) == {"name": "lamp", "user": "ada"}
    told = page.evaluate("async (url) => (await fetch(url + 'docs')).text()", url)
    assert f"url: '/{url.split('/')[3]}/openapi.json'" in told
    echoed = page.evaluate(
        """(url) => new Promise((resolve, reject) => {
          const socket = new WebSocket(url.replace('http', 'ws') + 'echo');
          socket.onopen = () => socket.send('hello');
          socket.onmessage = (event) => { resolve(event.data); socket.close(); };
          socket.onerror = reject;
        })""",
        url,
    )
    assert echoed == "hello"


def test_a_node_server_redirects_and_sets_cookies_below_the_token(recipe: Recipe, page: Page) -> None:
    url = recipe("node.md")["url"]
    page.goto(url)
    assert (page.url, page.title()) == (f"{url}page", "Node")
    page.get_by_text("who am I?").click()
    page.wait_for_url(f"{url}who")
    assert json.loads(page.inner_text("body")) == {"user": "ada", "cookie": "visited=yes"}
    assert [cookie["path"] for cookie in page.context.cookies()] == [f"/{url.split('/')[3]}"]


def test_socket_io_carries_what_one_says_to_all(recipe: Recipe, page: Page) -> None:
    url = recipe("socketio.md")["url"]
    page.goto(url)
    other = page.context.new_page()
    other.goto(url)
    for opened in (page, other):
        opened.wait_for_function("socket.io.engine.transport.name === 'websocket'")
    other.evaluate("socket.emit('say', 'hello')")
    expect(page.locator("#said li")).to_have_text("hello")


def test_vite_shows_a_change_without_a_reload(recipe: Recipe, page: Page, folder: Path) -> None:
    answer = recipe("vite.md")
    page.goto(answer["url"])
    assert page.url == f"{host_of(answer['url'])}/"
    expect(page.locator("#text")).to_have_text("hello")
    page.evaluate("window.kept = true")
    (folder / "examples/applications/vite/text.js").write_text('export const text = "changed";\n')
    expect(page.locator("#text")).to_have_text("changed")
    assert page.evaluate("window.kept")
    assert answer["token"] not in page.evaluate("document.cookie")


def test_streamlit_answers_a_button(recipe: Recipe, page: Page) -> None:
    page.goto(recipe("streamlit.md")["url"])
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("Name").press("Enter")
    page.get_by_role("button", name="Greet").click()
    expect(page.get_by_text("Hello, Ada!")).to_be_visible()


def test_gradio_streams_from_its_queue(recipe: Recipe, page: Page) -> None:
    page.goto(recipe("gradio.md")["url"])
    page.get_by_label("name").fill("Ada")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_label("output")).to_have_value("3 for Ada")


def test_marimo_computes_again(recipe: Recipe, page: Page) -> None:
    page.goto(recipe("marimo.md")["url"])
    expect(page.get_by_text("Seven times that is 42")).to_be_visible()
    number = page.locator("input[type=text], input[type=number]").first
    number.fill("7")
    number.press("Enter")
    expect(page.get_by_text("Seven times that is 49")).to_be_visible()


def test_novnc_connects_to_the_desktop(recipe: Recipe, page: Page) -> None:
    need("Xvnc")
    answer = recipe("novnc.md")
    page.goto(f"{answer['url']}vnc.html?autoconnect=1")
    page.wait_for_function("document.documentElement.classList.contains('noVNC_connected')")
    assert page.url == f"{host_of(answer['url'])}/vnc.html?autoconnect=1"
