"""`plane db`, and `plane-db`, which is the same: the database looked into and mended without a controller."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clusters import Cluster, processes_of, separate_parts, until
from harness.commands import LIMIT_S, Done, run
from harness.program import PLANE, program


@pytest.fixture
def cluster(postgres_url: str, tmp_path: Path) -> Iterator[Cluster]:
    with separate_parts(postgres_url, tmp_path, controllers=1) as running:
        yield running


def db(url: str, *arguments: str, stdin: str = "") -> Done:
    """A command as scripts written for the original have it: the database comes first."""
    return run("db", "--db", url, *arguments, stdin=stdin)


def test_lists_and_what_is_to_be_terminated(cluster: Cluster, postgres_url: str) -> None:
    name = f"localhost:{cluster.proxy_port}"
    backend = cluster.spawn("k", spawn={"lifetime_limit_seconds": 3600})["backend_id"]
    cluster.until_status(backend, "ready")
    nodes = db(postgres_url, "list-nodes", "--cluster", name).out
    assert {"dr-test", "px-test", "Drone", "Proxy"} <= set(nodes.split())
    (listed,) = db(postgres_url, "list-backends", "--json").json()["backends"]
    assert (listed["id"], listed["key"]["name"]) == (backend, "k")
    assert backend in db(postgres_url, "list-backends").out
    candidates = ("termination-candidates", "--cluster", name, "--drone", "dr-test")
    assert db(postgres_url, *candidates).out == "No backend of this drone is to be terminated\n"
    short = cluster.spawn("short", spawn={"lifetime_limit_seconds": 6})["backend_id"]
    until(lambda: [each["backend"] for each in db(postgres_url, *candidates, "--json").json()] == [short])
    (candidate,) = db(postgres_url, *candidates, "--json").json()
    assert (candidate["status"], candidate["ordered_s"], candidate["acknowledged"]) == ("ready", None, False)
    # Its drone takes no order, so it stays overdue with its order out.
    cluster.programs["drone"].process.send_signal(signal.SIGSTOP)

    def listed_with_its_order() -> bool:
        (line,) = db(postgres_url, *candidates).out.splitlines()[1:]
        return line.split()[0] == short and line.endswith("ago, not acknowledged")

    until(listed_with_its_order)
    (candidate,) = db(postgres_url, *candidates, "--json").json()
    assert candidate["due_in_s"] < 0 <= candidate["ordered_s"]
    cluster.programs["drone"].process.send_signal(signal.SIGCONT)
    cluster.programs["proxy"].stop()
    until(lambda: "px-test" not in db(postgres_url, "list-nodes").out)
    assert "px-test" in db(postgres_url, "list-nodes", "--all").out


def test_events_are_followed_as_they_come(cluster: Cluster, postgres_url: str, tmp_path: Path) -> None:
    with program(["db", "events", "--json", "--db", postgres_url], tmp_path, "events") as following:
        seen: list[dict[str, object]] = []

        def heard() -> bool:
            cluster.spawn(None)
            seen[:] = [json.loads(line) for line in following.out.read_text().splitlines()]
            return bool(seen)

        until(heard)
        assert {event["kind"] for event in seen} <= {"backend_state", "backend_action", "node_connection"}
        assert all(event["payload"] for event in seen)


def test_a_key_that_may_not_be_renewed_ends_its_backend(cluster: Cluster, postgres_url: str) -> None:
    backend = cluster.spawn("k")["backend_id"]
    cluster.until_status(backend, "ready")
    assert db(postgres_url, "prevent-renew", backend).out == f"The key of backend {backend} will not be renewed\n"
    refused = db(postgres_url, "prevent-renew", "nobody")
    assert (refused.status, refused.out) == (1, "")
    assert "holds no key" in refused.err
    # Its drone asks after 30 s, is refused, and ends it gracefully 10 s later.
    assert cluster.until_status(backend, "terminated", 70)["termination_reason"] == "keyexpired"


def test_a_lost_backend_is_marked_only_after_yes(cluster: Cluster, postgres_url: str) -> None:
    first, second = (cluster.spawn(key)["backend_id"] for key in ("one", "two"))
    for backend in (first, second):
        cluster.until_status(backend, "ready")
    asked = db(postgres_url, "mark-backend-lost", first, second, stdin="y\nn\n")
    assert asked.status == 0, asked.err
    assert f"Backend {first} is ready on dr-test, key one. Mark as lost? [y/N]" in asked.out
    ended = cluster.status(first)
    assert (ended["status"], ended["termination_reason"], ended["message"]) == (
        "terminated",
        "lost",
        "marked as lost by hand",
    )
    # It still runs, so nobody else gets its key before the lease ends.
    again = {"key": {"name": "one"}, "spawn_config": {"executable": cluster.executable()}}
    assert processes_of(first)
    assert cluster.call("POST", "/ctrl/connect", again).status == 503
    assert cluster.status(second)["status"] == "ready"
    assert db(postgres_url, "mark-backend-lost", second).out.endswith("[y/N] ")
    assert cluster.status(second)["status"] == "ready"
    where = ("--drone", "dr-test", "--cluster", f"localhost:{cluster.proxy_port}")
    assert f"Backend {second} is marked as lost" in db(postgres_url, "mark-backend-lost", *where, "--yes").out
    assert "has ended already" in db(postgres_url, "mark-backend-lost", second, "--yes").out
    assert db(postgres_url, "mark-backend-lost", *where, "--yes").out == "No backend of this drone is live\n"


def test_cleanup_deletes_only_what_is_asked_for(cluster: Cluster, postgres_url: str) -> None:
    backend = cluster.spawn("k")["backend_id"]
    cluster.call("POST", f"/ctrl/b/{backend}/hard-terminate")
    cluster.until_status(backend, "terminated")
    assert db(postgres_url, "cleanup").out == "Deleted expired tokens\n"
    assert backend in db(postgres_url, "list-backends", "--all").out
    assert "Deleted 1 terminated backends" in db(postgres_url, "cleanup", "--min-age-days", "0", "50").out
    assert backend not in db(postgres_url, "list-backends", "--all").out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("mark-backend-lost",), 1, "name either backends, or a drone"),
        (("mark-backend-lost", "x", "--drone", "dr-x", "--cluster", "c"), 1, "name either backends, or a drone"),
        (("mark-backend-lost", "--drone", "dr-x"), 1, "--cluster"),
        (("mark-backend-lost", "nobody"), 1, "there is no backend 'nobody'"),
        (("mark-backend-lost", "--cluster", "c", "--drone", "dr-none"), 1, "there is no drone 'dr-none'"),
        (("termination-candidates", "--cluster", "c", "--drone", "dr-none"), 1, "there is no drone 'dr-none'"),
        (("cleanup", "0"), 2, "BATCH"),
        (("cleanup", "--min-age-days", "-1"), 2, "--min-age-days"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_errors_say_what_to_do(arguments: tuple[str, ...], status: int, said: str, migrated_url: str) -> None:
    done = db(migrated_url, *arguments)
    assert done.status == status, done.err
    assert said in done.err + done.out
    assert "Traceback" not in done.err


def test_the_second_name_is_the_same_program(migrated_url: str) -> None:
    done = subprocess.run(
        [PLANE.with_name("plane-db"), "list-nodes"],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT_S,
        env={**os.environ, "DATABASE_URL": migrated_url},
    )
    assert done.stdout.split()[:2] == ["NODE", "KIND"]


@pytest.fixture
def migrated_url(postgres_url: str) -> str:
    assert run("migrate", "--db", postgres_url).status == 0
    return postgres_url
