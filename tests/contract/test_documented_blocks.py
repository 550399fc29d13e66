"""Each block of the documentation is run by a test, or says why not; and each page says what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.pages import blocks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# A list of links, and decisions, which have a form of their own.
WITHOUT_START = ("index.md", "decisions/")
PAGES = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "README.md", *DOCS.rglob("*.md")))

# The test that runs the blocks of a page. It has the page's name.
RUN_BY = {
    "README.md": "tests/acceptance/test_client_examples.py",
    "docs/how-to/backup.md": "tests/acceptance/test_documented_operations.py",
    "docs/how-to/events-and-webhooks.md": "tests/acceptance/test_events.py",
    "docs/how-to/install.md": "tests/acceptance/test_distribution.py",
    "docs/how-to/isolate.md": "tests/acceptance/test_documented_operations.py",
    "docs/how-to/kubernetes.md": "tests/acceptance/test_documented_operations.py",
    "docs/how-to/load-balancer.md": "tests/harness/haproxy.py",
    "docs/how-to/scale.md": "tests/acceptance/test_compiled_proxy.py",
    "docs/how-to/tls.md": "tests/acceptance/test_documented_operations.py",
    "docs/how-to/traces.md": "tests/acceptance/test_traces.py",
    "docs/how-to/verify-a-release.md": "tests/acceptance/test_documented_operations.py",
    "docs/internals/safety-testing.md": "tests/faults/test_run.py",
    "docs/reference/command-line.md": "tests/acceptance/test_documented_commands.py",
    "docs/reference/python-client.md": "tests/contract/test_documentation.py",
    "docs/tutorial/editor.md": "tests/acceptance/test_tutorial.py",
    "docs/tutorial/first-cluster.md": "tests/acceptance/test_tutorial.py",
    "docs/tutorial/production.md": "tests/acceptance/test_production.py",
    "docs/tutorial/your-application.md": "tests/acceptance/test_tutorial.py",
    **{
        f"docs/how-to/applications/{name}.md": "tests/browser/test_applications.py"
        for name in ("fastapi", "gradio", "jupyterlab", "marimo", "node", "novnc", "socketio", "streamlit", "vite")
    },
    "docs/how-to/applications/index.md": "tests/acceptance/test_documented_operations.py",
}
# Drawings, and what a program prints or sends.
NO_COMMANDS = ("mermaid",)
# Tests that run the blocks of a page by their titles, not all of them one after the other.
BY_TITLE = (
    "tests/acceptance/test_compiled_proxy.py",
    "tests/acceptance/test_distribution.py",
    "tests/acceptance/test_documented_operations.py",
)
# The first words of a block that no test runs, and why.
NOT_RUN = {
    "gh attestation verify": "asks GitHub about a release",
    "kubectl create secret": "needs a cluster of Kubernetes; test_helm checks the names that the chart reads",
    "helm install": "needs a cluster of Kubernetes; test_helm renders the chart where Helm is installed",
}


@pytest.mark.parametrize("page", PAGES)
def test_each_block_is_run_by_a_test(page: str) -> None:
    shown = [block for block in blocks(ROOT / page) if block.kind not in NO_COMMANDS]
    if not shown:
        assert page not in RUN_BY, "there is nothing to run on this page any more"
        return
    assert page in RUN_BY, f"no test runs the blocks of this page: {[block.text for block in shown]}"
    test = (ROOT / RUN_BY[page]).read_text()
    assert Path(page).stem in test, f"{RUN_BY[page]} does not name this page"
    for block in shown:
        if block.kind == "text":
            assert block.title, f"what is this block, a command (sh) or output? {block.text}"
        if RUN_BY[page] in BY_TITLE and block.title not in ("", "output"):
            is_run = any(f'"{block.title}"' in (ROOT / each).read_text().replace("'", '"') for each in BY_TITLE)
            assert is_run != block.text.startswith(tuple(NOT_RUN)), f"no test runs {block.text}"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_all_found(page: str) -> None:
    fences = re.findall(r"^ *```", (ROOT / page).read_text(), re.M)
    assert len(fences) == 2 * len(blocks(ROOT / page)), "a block is indented, or has no language"


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_each_page_begins_with_what_its_reader_will_be_able_to_do(page: str) -> None:
    if page.removeprefix("docs/").startswith(WITHOUT_START):
        return
    title, _, text = (ROOT / page).read_text().partition("\n\n")
    assert re.fullmatch(r"# .+", title)
    assert text.startswith("After this page ")
