"""``executable.network: none``: a backend reaches nothing, and is reached at its port alone, through its drone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import real_parts
from harness.clusters import Cluster, processes_of, separate_parts, until


@pytest.fixture(params=["process", "docker"])
def cluster(request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path) -> Iterator[Cluster]:
    docker = None
    if request.param == "docker":
        docker = (real_parts.docker_engine(), real_parts.docker_image())
    elif not shutil.which("bwrap"):
        real_parts.missing("bubblewrap")
    with separate_parts(postgres_url, tmp_path, controllers=1, docker=docker, drone=()) as running:
        yield running


def spawn(cluster: Cluster, key: str, **env: str) -> str:
    """A backend with no network; returns its URL once it responds."""
    executable = {**cluster.executable(**env), "network": "none"}
    answer = cluster.connect(spawn_config={"executable": executable}, key={"name": key})
    cluster.until_status(answer["backend_id"], "ready")
    return str(answer["url"])


def relay_of(backend: str) -> int:
    [pid] = [pid for pid in processes_of(backend) if b"relay_program" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return pid


ATTACK = """
import os, socket
addresses = [tuple(word.rsplit(":", 1)) for word in os.environ["TARGETS"].split()]
for host, port in addresses:
    try:
        socket.create_connection((host, int(port)), timeout=2)
        print("reached", host, port)
    except OSError as error:
        print("refused", host, port, type(error).__name__)
for name in os.environ["NAMES"].split():
    try:
        socket.socket(socket.AF_UNIX).connect("\\0" + name)
        print("reached", name)
    except OSError:
        print("refused", name)
for descriptor in os.listdir("/proc/self/fd"):
    try:
        print(os.readlink("/proc/self/fd/" + descriptor))
    except OSError:
        pass
print("interfaces", *[name for _, name in socket.if_nameindex()])
raise SystemExit(9)
"""


def attack(cluster: Cluster, network: str, targets: list[str], name: str) -> str:
    executable = {**cluster.executable(CODE=ATTACK, TARGETS=" ".join(targets), NAMES=name), "network": network}
    backend = cluster.connect(spawn_config={"executable": executable})["backend_id"]
    return str(cluster.until_status(backend, "terminated")["message"])


def test_nothing_can_be_reached(cluster: Cluster) -> None:
    neighbour = cluster.spawn("neighbour")
    cluster.until_status(neighbour["backend_id"], "ready")
    targets = [url.removeprefix("http://") for url in cluster.control_urls]
    targets += [f"127.0.0.1:{cluster.proxy_port}", f"::1:{cluster.proxy_port}"]
    with socket.create_server(("0.0.0.0", 0)) as world, socket.socket(socket.AF_UNIX) as abstract:
        # Of the machine's other addresses, the bridge of a Docker engine is one.
        addresses = subprocess.run(["hostname", "-I"], check=True, capture_output=True, text=True).stdout.split()
        targets += [f"{address}:{world.getsockname()[1]}" for address in addresses if ":" not in address]
        name = f"plane-test-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        shared, none = (attack(cluster, network, targets, name) for network in ("shared", "none"))
    assert "reached " in shared
    assert "reached " not in none, none
    assert none.count("refused") == len(targets) + 1, none
    assert "socket:" not in none
    assert none.splitlines()[-1] == "interfaces lo"


def test_requests_tunnels_and_their_ends_pass(cluster: Cluster) -> None:
    url = spawn(cluster, "one")
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status for answer in pool.map(lambda _: cluster.get(url), range(64))} == {200}
    tunnel = cluster.tunnel(url)
    data = os.urandom(3_000_000)
    sending = threading.Thread(target=tunnel.sendall, args=(data,))
    sending.start()
    got = b""
    while len(got) < len(data):
        got += tunnel.recv(1 << 20)
    sending.join()
    assert got == data
    tunnel.close()


def test_its_relay_outlives_the_drone_and_ends_with_the_backend(cluster: Cluster) -> None:
    url, other = spawn(cluster, "kept"), spawn(cluster, "other")
    kept, other_backend = (backend for backend in cluster.spawned[-2:])
    assert "CapEff:\t0000000000000000" in Path(f"/proc/{relay_of(kept)}/status").read_text()
    with cluster.tunnel(url) as tunnel:
        cluster.programs["drone"].stop(signal.SIGKILL)
        tunnel.sendall(b"still")
        assert tunnel.recv(100) == b"still"
    cluster.start_again("drone").says("connected to controller")
    assert cluster.get(url).status == 200
    cluster.call("POST", f"/ctrl/b/{kept}/hard-terminate")
    cluster.until_status(kept, "terminated")
    until(lambda: processes_of(kept) == [])
    # Without its relay nobody can reach a backend any more.
    assert cluster.get(other).status == 200
    os.kill(relay_of(other_backend), signal.SIGKILL)
    cluster.until_status(other_backend, "terminated")
    until(lambda: processes_of(other_backend) == [])


def test_what_contradicts_it_is_refused(cluster: Cluster) -> None:
    other = {"isolation": "none"} if cluster.image is None else {"network_name": "bridge"}
    executable = {**cluster.executable(), "network": "none", **other}
    backend = cluster.connect(spawn_config={"executable": executable})["backend_id"]
    assert "executable.network" in cluster.until_status(backend, "terminated")["message"]
