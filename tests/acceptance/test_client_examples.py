"""The examples of the client's page in the documentation, run beside a cluster as their first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.clusters import Cluster, dev_cluster, free_port, until

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dev_cluster(tmp_path_factory.mktemp("examples"), "--runtime", "process") as running:
        yield running


@contextmanager
def served(cluster: Cluster, folder: Path, *command: str) -> Iterator[None]:
    values = {**os.environ, "PLANE_CONTROLLER": cluster.control_urls[0]}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *command], env=values, cwd=EXAMPLES, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(LIMIT_S)


def test_the_lines_of_the_readme_get_a_url(cluster: Cluster) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    assert "http://127.0.0.1:8080" in block
    lines = block.replace("http://127.0.0.1:8080", cluster.control_urls[0])
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    until(lambda: cluster.get(done.stdout.strip()).status == 200)


def test_the_plain_script_opens_uses_and_ends_a_process(cluster: Cluster) -> None:
    command = [sys.executable, str(EXAMPLES / "plain_script.py"), cluster.control_urls[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("/ answers 200")
    assert lines[1] == "scheduled"
    assert lines[-1] == "terminated"


@pytest.mark.parametrize("framework", ["fastapi", "django"])
def test_a_browser_is_sent_to_the_document_s_process(cluster: Cluster, framework: str, tmp_path: Path) -> None:
    port = free_port()
    command = {
        "fastapi": ("-m", "uvicorn", "fastapi_app:app", "--port", str(port)),
        "django": ("django_app.py", "runserver", "--noreload", f"127.0.0.1:{port}"),
    }[framework]
    with served(cluster, tmp_path, *command):
        url = f"http://127.0.0.1:{port}/documents/of-{framework}?user=ada"

        def listing() -> bytes:
            try:
                answer = cluster.get(url)
            except OSError:
                return b""
            assert answer.status == 200, answer.body
            return answer.body

        until(lambda: b"Directory listing" in listing(), LIMIT_S)
        found = cluster.call("GET", f"/ctrl/backends?key=of-{framework}&namespace=documents").json()["backends"]
        assert len(found) == 1
