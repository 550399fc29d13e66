"""Docker, all of it: limits, runtimes, networks, mounts, logs, pulls, pruning, and ends for want of memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clusters import Cluster, separate_parts, until
from harness.docker_parts import OwnDocker, Registry, own_docker, own_registry
from harness.real_parts import pack_python, random_net
from plane.runtime.docker.config import ContainerDefaults
from plane.runtime.docker.engine import DockerEngine
from plane.runtime.docker.images import DockerImages
from plane.runtime.docker.pruner import prune_containers
from plane.runtime.docker.runtime import DockerRuntime
from plane.runtime.logs.collector import LogCollector

pytestmark = pytest.mark.xdist_group("docker")
MOUNTS = "mounts"
PYTHON = "plane-test-python:own"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDocker]:
    """An engine with an image of Python and a tiny one, whose containers have a stack of 1 MiB at most."""
    folder = tmp_path_factory.mktemp("engine")
    stack = {"Name": "stack", "Soft": 1024 * 1024, "Hard": 1024 * 1024}
    with own_docker(**{"default-ulimits": {"stack": stack}}) as running:
        pack_python(folder / "python.tar")
        command = """CMD ["/usr/bin/python3", "-c", "import os; exec(os.environ['CODE'])"]"""
        running.run("import", "--change", command, str(folder / "python.tar"), PYTHON)
        (folder / "python.tar").unlink()
        running.tiny_image("tiny:kept")
        yield running


@pytest.fixture
def cluster(engine: OwnDocker, postgres_url: str, tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / MOUNTS).mkdir()
    options: tuple[str, ...] = (
        "--terminate-on-exit",
        "--docker-runtime",
        "second",
        "--mount-base",
        str(tmp_path / MOUNTS),
    )
    options += ("--log-config", json.dumps({"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}))
    docker = (engine.socket, PYTHON)
    with separate_parts(postgres_url, tmp_path, controllers=1, docker=docker, drone=options) as running:
        yield running


def run(
    cluster: Cluster, status: str = "ready", key: str | None = None, **executable: Any
) -> tuple[str, dict[str, Any]]:
    """A backend with more in its executable, once it has ``status``."""
    whole = {**cluster.executable(**executable.pop("env", {})), **executable}
    backend = cluster.connect(spawn_config={"executable": whole}, key=None if key is None else {"name": key})
    return backend["backend_id"], cluster.until_status(backend["backend_id"], status)


def test_limits_are_seen_by_the_engine_and_from_inside(cluster: Cluster, engine: OwnDocker) -> None:
    engine.run("network", "create", "--subnet", f"{random_net()}.0/24", "plane-net")
    limits = {"memory_limit_bytes": 100_000_000, "cpu_period": 50_000, "cpu_period_percent": 30, "cpu_time_limit": 77}
    backend, _ = run(cluster, resource_limits=limits, network_name="plane-net")
    found = engine.inspect(f"plane-{backend}")
    host = found["HostConfig"]
    assert (host["Memory"], host["CpuPeriod"], host["CpuQuota"]) == (100_000_000, 50_000, 15_000)
    assert {"Name": "cpu", "Soft": 77, "Hard": 77} in host["Ulimits"]
    assert host["Runtime"] == "second"
    assert host["NetworkMode"] == "plane-net"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    assert found["Config"]["Labels"]["dev.plane.backend"] == "true"
    assert found["Config"]["Labels"]["dev.plane.drone"] == "dr-test"
    inside = engine.run("exec", f"plane-{backend}", "sh", "-c", "ulimit -t").stdout.strip()
    assert inside == "77"


def test_what_the_engine_refuses_is_said(cluster: Cluster, engine: OwnDocker) -> None:
    _, entry = run(cluster, "terminated", network_name="no-such-network")
    assert "network no-such-network not found" in entry["message"]
    _, entry = run(cluster, "terminated", resource_limits={"disk_limit_bytes": 10_000_000})
    assert "--storage-opt is supported only" in entry["message"] or "storage" in entry["message"]
    _, entry = run(cluster, "terminated", env={"LONG": "x" * 140_000})
    assert "executable.env: LONG has 140006 bytes with its name" in entry["message"]
    # A quarter of the stack is what Linux allows for all of them.
    _, entry = run(cluster, "terminated", env={f"LONG{index}": "x" * 100_000 for index in range(3)})
    assert "(executable.env and the variables of the image are together larger than" in entry["message"]
    until(lambda: not engine.run("ps", "-aq", "--filter", "label=dev.plane.backend").stdout)


def test_want_of_memory_is_told_apart(cluster: Cluster) -> None:
    code = "x = []\nwhile True: x.append(bytearray(10_000_000))"
    backend, entry = run(cluster, "terminated", env={"CODE": code}, resource_limits={"memory_limit_bytes": 50_000_000})
    assert "exited with code 137 after it ran out of memory (resource_limits.memory_limit_bytes)" in entry["message"]
    assert len([state for state in cluster.history(backend) if state["status"] == "terminated"]) == 1
    _, entry = run(cluster, "terminated", env={"MODE": "exit"})
    assert "exited with code 3" in entry["message"]
    assert "memory" not in entry["message"]
    assert "cannot go on" in entry["message"]


def test_mounts_stay_below_the_base(cluster: Cluster, engine: OwnDocker, tmp_path: Path) -> None:
    base, outside = tmp_path / MOUNTS, tmp_path / "outside"
    outside.mkdir()
    (base / "link").symlink_to(outside)
    (base / "inner").mkdir()
    (base / "inner/link").symlink_to("..")
    (base / "file").write_text("no folder")
    backend, _ = run(cluster, key="my-key", mount=True)
    engine.run("exec", f"plane-{backend}", "sh", "-c", "echo kept > /plane-data/file")
    assert (base / "my-key/file").read_text() == "kept\n"
    backend, _ = run(cluster, mount="docs/one")
    assert engine.inspect(f"plane-{backend}")["Mounts"][0]["Source"] == str(base / "docs/one")
    before = sorted(path for path in base.rglob("*"))
    for key, mount in (
        ("../../etc", True),
        ("/etc", True),
        ("link", True),
        ("k", "../outside"),
        ("k", "/etc"),
        ("k", "link/below"),
        ("k", "inner/link/x"),
        ("k", "file"),
        ("k", ""),
        ("k", "a/" * 500),
    ):
        _, entry = run(cluster, "terminated", key=key, mount=mount)
        assert "executable.mount: " in entry["message"], (key, mount)
    assert sorted(path for path in base.rglob("*")) == before
    assert list(outside.iterdir()) == []


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, engine: OwnDocker) -> Iterator[Registry]:
    """With the tiny image in it."""
    with own_registry(tmp_path_factory.mktemp("registry")) as running:
        engine.run("login", "-u", running.user, "-p", running.password, running.host)
        for name in ("one", "two"):
            engine.run("tag", "tiny:kept", f"{running.host}/{name}:v1")
            engine.run("push", f"{running.host}/{name}:v1")
            engine.run("rmi", f"{running.host}/{name}:v1")
        engine.run("logout", running.host)
        yield running


def test_pulls_with_policies_and_credentials(cluster: Cluster, engine: OwnDocker, registry: Registry) -> None:
    image = f"{registry.host}/one:v1"
    right = {"username": registry.user, "password": registry.password}
    _, entry = run(cluster, "terminated", image=image, pull_policy="Always")
    assert f"cannot pull '{image}'" in entry["message"]
    assert "no basic auth credentials" in entry["message"]
    wrong = {**right, "password": "wrong"}
    _, entry = run(cluster, "terminated", image=image, pull_policy="IfNotPresent", credentials=wrong)
    assert "unauthorized" in entry["message"]
    _, entry = run(cluster, "terminated", image=image, pull_policy="Never", credentials=right)
    assert "pull_policy is Never" in entry["message"]
    _, entry = run(cluster, "terminated", image=f"{registry.host}/none:v1", pull_policy="Always", credentials=right)
    assert "manifest unknown" in entry["message"] or "not found" in entry["message"]
    run(cluster, image=image, pull_policy="IfNotPresent", credentials=right)
    # There now: not pulled again, and so no credentials are needed.
    run(cluster, image=image, pull_policy="IfNotPresent")
    _, entry = run(cluster, "terminated", image=image, pull_policy="Always")
    assert "no basic auth credentials" in entry["message"]
    assert registry.password not in cluster.programs["drone"].log.read_text()


def test_one_pull_however_many_wait(cluster: Cluster, registry: Registry) -> None:
    image = f"{registry.host}/two:v1"
    credentials = {"username": registry.user, "password": registry.password}
    whole = {"image": image, "credentials": credentials}
    backends: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: backends.append(cluster.connect(spawn_config={"executable": whole})["backend_id"])
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for backend in backends:
        cluster.until_status(backend, "ready")
    # None of the eight found it there and pulled it a second time.
    log = cluster.programs["drone"].log.read_text()
    assert log.count(" pulled ") == 1


def test_two_drones_of_one_name_on_one_engine_do_not_remove_each_others_containers(engine: OwnDocker) -> None:
    """As those of `plane dev` in two containers to which the same engine was given."""
    orphans = {}
    for installation in ("one", "two"):
        defaults = ContainerDefaults(drone="dr-dev-docker", cluster="localhost:9090", installation=installation)
        labels = {"dev.plane.backend": "true"} | defaults.labels
        words = [word for label in labels.items() for word in ("--label", "=".join(label))]
        engine.run("run", "-d", "--name", f"plane-{installation}", *words, "tiny:kept", "/bin/busybox", "sleep", "1000")
        orphans[installation] = defaults

    async def remove_orphans(defaults: ContainerDefaults) -> list[str]:
        runtime = DockerRuntime(LogCollector(), engine.socket, defaults=defaults)
        try:
            return await runtime.remove_orphans(())
        finally:
            await runtime.close(leave_running=True)

    assert asyncio.run(remove_orphans(orphans["one"])) == ["plane-one"]
    assert asyncio.run(remove_orphans(orphans["two"])) == ["plane-two"]


def test_pruning_touches_only_what_is_ours_and_stopped(engine: OwnDocker, tmp_path: Path) -> None:
    def container(name: str, *labels: str, command: str = "true") -> str:
        words = [word for label in labels for word in ("--label", label)]
        engine.run("run", "-d", "--name", name, *words, "tiny:kept", "/bin/busybox", *command.split())
        return name

    ours, theirs = (
        ("dev.plane.backend=true", "dev.plane.drone=dr-x"),
        ("dev.plane.backend=true", "dev.plane.drone=dr-y"),
    )
    container("plane-stopped", *ours)
    container("plane-in-use", *ours)
    container("plane-unmarked", "dev.plane.backend=true")
    container("plane-runs", *ours, command="sleep 1000")
    container("plane-others", *theirs)
    container("plane-of-another-installation", *ours, "dev.plane.installation=other")
    container("not-ours")
    engine.run("create", "--name", "plane-created", *(w for label in ours for w in ("--label", label)), "tiny:kept")
    until(lambda: "plane-stopped" in engine.run("ps", "-a", "--filter", "status=exited").stdout)
    until(lambda: engine.run("ps", "-aq", "--filter", "status=exited").stdout.count("\n") == 6)
    labels = ContainerDefaults(drone="dr-x", cluster="test", installation="this").labels

    async def prune(after_s: float) -> None:
        client = DockerEngine(engine.socket)
        await prune_containers(client, labels, {"plane-in-use"}, after_s)
        await client.close()

    async def prune_images(requested: str) -> None:
        client = DockerEngine(engine.socket)
        images = DockerImages(client)
        images.mark_requested(requested)
        await images.prune()
        await images.close()
        await client.close()

    def names() -> set[str]:
        return set(engine.run("ps", "-a", "--format", "{{.Names}}").stdout.split())

    before = names()
    asyncio.run(prune(3600))
    assert names() == before
    asyncio.run(prune(0))
    assert before - names() == {"plane-stopped", "plane-unmarked"}

    for name in ("unused:v1", "unused:v2", "wanted:v1"):
        engine.tiny_image(name)
    asyncio.run(prune_images("wanted:v1"))
    left = engine.run("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert "wanted:v1" in left
    assert "tiny:kept" in left
    assert not [name for name in left if name.startswith("unused")]
