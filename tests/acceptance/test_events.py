"""Events, audit log and webhooks as an operator uses them: the commands of the how-to page, with its receiver."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clusters import Cluster, dev_cluster, free_port, until
from harness.commands import LIMIT_S, run
from harness.program import PLANE, program

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/events-and-webhooks.md").read_text()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with dev_cluster(tmp_path_factory.mktemp("events"), "--runtime", "process") as running:
        yield running


def documented(line: str, cluster: Cluster, port: int) -> str:
    """Run a line of the page and return its output."""
    command = line.replace(".venv/bin/plane", str(PLANE)).replace("127.0.0.1:8099", f"127.0.0.1:{port}")
    values = {**os.environ, "PLANE_CONTROLLER": cluster.control_urls[0]}
    done = subprocess.run(
        ["sh", "-c", command], env=values, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_the_page_works_from_its_first_line_to_its_last(cluster: Cluster, tmp_path: Path) -> None:
    port = free_port()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    assert len(lines) == 9
    connect, listed, filtered, audit, set_hook, test_hook, list_hooks, delete_hook, terminate = lines
    documented(connect, cluster, port)
    assert [line.split()[3] for line in documented(listed, cluster, port).splitlines()] == [
        "drone.connected",
        "backend.scheduled",
        "backend.ready",
    ]
    found = [json.loads(line) for line in documented(filtered, cluster, port).splitlines()]
    assert [(each["type"], each["backend"]) for each in found] == [
        ("backend.scheduled", "observed"),
        ("backend.ready", "observed"),
    ]
    secret = re.search(r"whsec_\S+", documented(set_hook, cluster, port))
    assert secret is not None
    audited = documented(audit, cluster, port)
    assert "admin.webhook_set" in audited
    assert "caller=dev" in audited
    assert secret[0] not in audited
    # The receiver of the page, as it is printed there.
    environment = {**os.environ, "WEBHOOK_SECRET": secret[0], "PORT": str(port)}
    with (
        (tmp_path / "received").open("w") as output,
        subprocess.Popen(
            [sys.executable, str(ROOT / "examples/webhook_receiver.py")],
            env=environment,
            stdout=output,
            stderr=subprocess.DEVNULL,
        ) as receiver,
    ):
        try:
            until(lambda: is_listening(port))
            assert "took the message" in documented(test_hook, cluster, port)
            assert documented(list_hooks, cluster, port).splitlines()[1].split()[:2] == ["demo", "on"]
            documented(terminate, cluster, port)
            until(lambda: "backend.terminated" in (tmp_path / "received").read_text())
            assert "deleted" in documented(delete_hook, cluster, port)
        finally:
            receiver.terminate()
    received = (tmp_path / "received").read_text().splitlines()
    assert [line.split()[0] for line in received if not line.startswith("webhook.test")] == ["backend.terminated"]


def test_a_receiver_that_does_not_respond_is_an_error_with_its_reason(cluster: Cluster) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    assert run("admin", "--controller", cluster.control_urls[0], "webhook", "set", "nobody", "--url", url).status == 0
    done = run("admin", "webhook", "test", "nobody", "--controller", cluster.control_urls[0])
    assert done.status == 1
    assert "refused" in done.err
    refused = run(
        "admin", "webhook", "set", "inner", "--url", "http://10.0.0.1/", "--controller", cluster.control_urls[0]
    )
    assert refused.status == 1
    assert "10.0.0.1 is not public" in refused.err
    again = run("admin", "webhook", "set", "nobody", "--url", url, "--json", "--controller", cluster.control_urls[0])
    assert again.json()["secret"] is None
    rotated = run(
        "admin", "webhook", "set", "nobody", "--url", url, "--rotate-secret", "--controller", cluster.control_urls[0]
    )
    assert "Secret: whsec_" in rotated.out
    (listed,) = run("admin", "webhook", "list", "--json", "--controller", cluster.control_urls[0]).json()["webhooks"]
    assert listed["name"] == "nobody"
    run("admin", "webhook", "delete", "nobody", "--controller", cluster.control_urls[0])
    empty = run("admin", "webhook", "list", "--controller", cluster.control_urls[0])
    assert empty.out == "No webhooks\n"


def test_followed_events_are_printed_as_they_come(cluster: Cluster, tmp_path: Path) -> None:
    arguments = ["admin", "events", "--follow", "--type", "backend.*", "--controller", cluster.control_urls[0]]
    with program(arguments, tmp_path, "follow") as shown:
        backend = cluster.spawn("followed")["backend_id"]
        shown.says(f"backend.ready       backend={backend} key=followed")
