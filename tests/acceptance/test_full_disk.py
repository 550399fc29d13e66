"""The disk of the state store fills up or hangs: nothing new is begun, what must end ends, recovery needs no help."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import real_parts
from harness.clusters import processes_of, separate_parts, until
from plane import timing


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        real_parts.missing("a file system that may be mounted (root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write until nothing more can be."""
    waste = folder / "waste"
    with waste.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return waste


def has_ended(backend: str) -> bool:
    """Whether no process of the backend is left."""
    return not processes_of(backend)


def test_a_full_disk(postgres_url: str, tmp_path: Path, small_disk: Path) -> None:
    options = ("--db", str(small_disk / "drone.sqlite"))
    with separate_parts(postgres_url, tmp_path, controllers=1, drone=options) as cluster:
        runs, told, ends = (cluster.spawn(name) for name in ("runs", "told", "ends"))
        for backend in (runs, told, ends):
            cluster.until_status(backend["backend_id"], "ready")
        drone = cluster.programs["drone"]
        waste = fill(small_disk)

        # No new work is accepted.
        refused = cluster.connect(key={"name": "new"}, spawn_config={"executable": cluster.executable()})
        drone.says("state store not writable; no new backends are accepted")
        assert cluster.status(refused["backend_id"])["status"] == "scheduled"
        # What must end ends, and what runs goes on.
        cluster.call("POST", f"/ctrl/b/{told['backend_id']}/soft-terminate")
        assert cluster.get(ends["url"], "exit?7").status == 502
        drone.says("backend state not persisted; retrying", times=2)
        for backend in (told, ends):
            until(functools.partial(has_ended, backend["backend_id"]))
        assert cluster.get(runs["url"]).status == 200

        waste.unlink()
        drone.says("state store writable again")
        assert cluster.until_status(told["backend_id"], "terminated")["termination_reason"] == "external"
        assert "exited with code 7" in cluster.until_status(ends["backend_id"], "terminated")["message"]
        statuses = [entry["status"] for entry in cluster.history(told["backend_id"])]
        assert statuses[-3:] == ["ready", "terminating", "terminated"]
        assert cluster.status(runs["backend_id"])["status"] == "ready"
        assert cluster.get(cluster.spawn("later")["url"]).status == 200
        # What was refused is sent again by the controller, and then done, or refused for good as too late.
        cluster.call("POST", f"/ctrl/b/{refused['backend_id']}/hard-terminate")
        assert drone.stop(signal.SIGTERM) == 0
        assert "Traceback" not in drone.log.read_text()


@pytest.fixture
def freezable_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system on which writes can be made to hang."""
    image, folder = tmp_path / "image", tmp_path / "freezable"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    commands = (["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(folder)])
    if os.geteuid() != 0 or any(subprocess.run(command, check=False).returncode for command in commands):
        real_parts.missing("a file system that may be mounted (root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    subprocess.run(["fsfreeze", "--freeze", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(folder)], check=True)


TALKS = """
import http.server, os, threading, time
def talk():
    while True:
        print("talk", flush=True)
        time.sleep(0.05)
threading.Thread(target=talk, daemon=True).start()
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ["PORT"]))
"""


def test_a_disk_that_hangs_while_a_backend_writes(postgres_url: str, tmp_path: Path, freezable_disk: Path) -> None:
    options = ("--db", str(freezable_disk / "drone.sqlite"))
    with separate_parts(postgres_url, tmp_path, controllers=1, drone=options) as cluster:
        backend = cluster.spawn("talks", CODE=TALKS)["backend_id"]
        cluster.until_status(backend, "ready")

        def heartbeat_age_s() -> int:
            (drone,) = cluster.call("GET", f"/ctrl/c/localhost:{cluster.proxy_port}/state").json()["drones"]
            age: int = drone["last_heartbeat_age"]
            return age

        with frozen(freezable_disk):
            # Longer than two heartbeats, which come like renewals from what would wait.
            time.sleep(2 * timing.HEARTBEAT_INTERVAL_S + 4)
            assert heartbeat_age_s() <= timing.HEARTBEAT_INTERVAL_S + 3
        assert cluster.status(backend)["status"] == "ready"
