"""The end of a backend: asked for softly or hard, or by itself. Each state is told once, in order."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from harness import real_parts
from harness.clusters import GRACE_S, Cluster, processes_of

RISING = ["scheduled", "loading", "starting", "waiting", "ready"]


def end(cluster: Cluster, backend: str, kind: str) -> list[dict[str, object]]:
    """Terminate, and return all that the stream tells."""
    cluster.until_status(backend, "ready")
    assert cluster.call("POST", f"/ctrl/b/{backend}/{kind}-terminate").status == 200
    return cluster.history(backend)


def test_soft_lets_a_process_finish(cluster: Cluster) -> None:
    backend = cluster.spawn("k", MODE="graceful")["backend_id"]
    history = end(cluster, backend, "soft")
    assert [entry["status"] for entry in history] == [*RISING, "terminating", "terminated"]
    assert history[-1]["exit_error"] is False
    assert history[-1]["termination_kind"] == "soft"
    assert history[-1]["termination_reason"] == "external"


# Begins to save when it is asked to stop, which takes less than the grace.
APP = """
import http.server, os, signal, time
def save(*_):
    print("saving", flush=True)
    time.sleep(GRACE_S / 2)
    print("saved", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, save)
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ["PORT"]), bind="127.0.0.1")
""".replace("GRACE_S", str(GRACE_S))
START = f'"{sys.executable}" -S -c "$APP"'
PACKAGE = json.dumps({"scripts": {"start": START}})
WRAPPERS = {
    "sh": f"{START}; echo done",
    "bash": f"exec bash -c 'cd / && {START} && echo done'",
    "npm": f"mkdir $TMPDIR/app && cd $TMPDIR/app && echo '{PACKAGE}' > package.json && exec npm start",
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_soft_lets_what_a_wrapper_has_started_finish(processes: Cluster, wrapper: str) -> None:
    if wrapper == "npm" and shutil.which("npm") is None:
        real_parts.missing("npm")
    executable = {
        "command": ["/bin/sh", "-c", WRAPPERS[wrapper]],
        "env": {"APP": APP, "NPM_CONFIG_UPDATE_NOTIFIER": "false"},
    }
    backend = processes.connect(spawn_config={"executable": executable})["backend_id"]
    history = end(processes, backend, "soft")
    assert [entry["status"] for entry in history] == [*RISING, "terminating", "terminated"]
    assert "saved" in processes.call("GET", f"/ctrl/b/{backend}/logs").body.decode()


def test_soft_kills_a_stubborn_process_after_the_grace(processes: Cluster) -> None:
    backend = processes.spawn("stubborn", MODE="stubborn")["backend_id"]
    processes.until_status(backend, "ready")
    # By this clock: the times of states are those at which the database heard of them, which a busy disk delays.
    began = time.monotonic()
    history = end(processes, backend, "soft")
    assert time.monotonic() - began >= GRACE_S - 0.1
    assert [entry["status"] for entry in history] == [*RISING, "terminating", "terminated"]
    assert history[-1]["exit_error"] is True


def test_hard_does_not_wait(cluster: Cluster) -> None:
    backend = cluster.spawn("k", MODE="stubborn")["backend_id"]
    history = end(cluster, backend, "hard")
    assert [entry["status"] for entry in history] == [*RISING, "hard-terminating", "terminated"]
    assert history[-1]["exit_error"] is True
    assert history[-1]["termination_kind"] == "hard"


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_what_somebody_has_stopped_ends(processes: Cluster, kind: str) -> None:
    if shutil.which("bwrap") is None:
        real_parts.missing("bubblewrap")
    executable = processes.executable(MODE="graceful") | {"isolation": "bubblewrap"}
    backend = processes.connect(spawn_config={"executable": executable})["backend_id"]
    processes.until_status(backend, "ready")
    # Its supervisors, too.
    for pid in processes_of(backend):
        os.kill(pid, signal.SIGSTOP)
    processes.call("POST", f"/ctrl/b/{backend}/{kind}-terminate")
    processes.until_status(backend, "terminated", GRACE_S + 5)
    assert not processes_of(backend)


def test_hard_after_soft(cluster: Cluster) -> None:
    backend = cluster.spawn("k", MODE="stubborn")["backend_id"]
    cluster.until_status(backend, "ready")
    cluster.call("POST", f"/ctrl/b/{backend}/soft-terminate")
    cluster.until_status(backend, "terminating")
    history = end_now(cluster, backend)
    assert [entry["status"] for entry in history] == [*RISING, "terminating", "hard-terminating", "terminated"]


def end_now(cluster: Cluster, backend: str) -> list[dict[str, object]]:
    cluster.call("POST", f"/ctrl/b/{backend}/hard-terminate")
    return cluster.history(backend)


def test_a_process_that_exits_by_itself(cluster: Cluster) -> None:
    first = cluster.spawn("k")
    fencing = int(cluster.get(first["url"]).json()["session"]["FENCING_TOKEN"])
    assert cluster.get(first["url"], "exit?3").status == 502
    entry = cluster.until_status(first["backend_id"], "terminated")
    assert entry["exit_error"] is True
    assert "termination_kind" not in entry
    assert "exited with code 3" in entry["message"]
    assert "the last words" in entry["message"]
    assert cluster.get(first["url"]).status == 410
    second = cluster.spawn("k")
    assert second["spawned"] is True
    assert int(cluster.get(second["url"]).json()["session"]["FENCING_TOKEN"]) > fencing


def test_no_descendant_survives(processes: Cluster, tmp_path: Path) -> None:
    marker = f"987.{time.monotonic_ns() % 1_000_000}"
    script = f"setsid sleep {marker} & sh -c 'setsid sleep {marker} &' ; exec sleep {marker}"
    answer = processes.connect(spawn_config={"executable": {"command": ["sh", "-c", script]}})
    processes.until_status(answer["backend_id"], "waiting")
    while running(marker) < 3:
        time.sleep(0.05)
    processes.call("POST", f"/ctrl/b/{answer['backend_id']}/hard-terminate")
    processes.until_status(answer["backend_id"], "terminated")
    assert running(marker) == 0


def running(marker: str) -> int:
    """How many `sleep` processes carry the marker."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        count += words[0].endswith(b"sleep") and marker.encode() in words
    return count
