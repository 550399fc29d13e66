"""`plane doctor` finds faults that were planted, and says what to do; and nothing where there is none."""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import trustme

from harness import real_parts
from harness.certificates import Authority
from harness.clusters import Cluster, dev_cluster, free_port
from harness.commands import run
from harness.pgbouncer import pgbouncer
from harness.program import PLANE

UNREACHABLE = "http://127.0.0.1:1"


def examined(*arguments: str, **environment: str) -> dict[str, dict[str, str]]:
    """Return the rows by the names of their checks. The exit status is that of the rows."""
    done = run("doctor", *arguments, "--json", **environment)
    rows = {row["check"]: row for row in done.json()}
    assert done.status == int(any(row["status"] == "failed" for row in rows.values())), done.err
    return rows


def configured(folder: Path, component: str, **fields: Any) -> str:
    """Write a file of `plane run-config`, and return its path."""
    path = folder / f"{component}.json"
    path.write_text(json.dumps({component: fields}))
    return str(path)


def drone(folder: Path, **fields: Any) -> str:
    defaults = {"controller_url": UNREACHABLE, "cluster": "localhost:9090", "db_path": str(folder / "drone.sqlite")}
    return configured(folder, "Drone", **{**defaults, **fields})


def proxy(folder: Path, **fields: Any) -> str:
    defaults = {"controller_url": UNREACHABLE, "cluster": "localhost", "port_config": {"http_port": free_port()}}
    return configured(folder, "Proxy", **{**defaults, **fields})


def is_failed(row: dict[str, str], found: str, advice: str) -> bool:
    assert row["status"] == "failed", row
    assert found in row["found"], row
    assert advice in row["advice"], row
    return True


def test_a_good_machine_and_database_pass(postgres_url: str, tmp_path: Path) -> None:
    rows = examined("--db", postgres_url, "--data-dir", str(tmp_path))
    assert [name for name, row in rows.items() if row["status"] == "failed"] == []
    for check in ("database", "database schema", "database clock", "database notifications", "disk"):
        assert rows[check]["status"] == "ok", rows[check]


def test_a_running_cluster_passes_and_its_own_ports_are_no_fault(tmp_path: Path) -> None:
    with dev_cluster(tmp_path) as cluster:
        backend = cluster.spawn("k")
        cluster.until_status(backend["backend_id"], "ready")
        key = tmp_path / "key"
        key.write_text(cluster.api_key or "")
        key.chmod(0o600)
        files = {"controller_url": cluster.control_urls[0], "controller_key_file": str(key)}
        where = {**files, "cluster": f"localhost:{cluster.proxy_port}"}
        rows = examined(proxy(tmp_path, **where, port_config={"http_port": cluster.proxy_port}))
        for check in ("controller", "backends", "HTTP port"):
            assert rows[check]["status"] == "ok", rows[check]
        assert "already" in rows["HTTP port"]["found"]
        rows = examined(drone(tmp_path, **where))
        assert {rows[check]["status"] for check in ("controller", "address", "disk")} == {"ok"}


def test_a_database_that_cannot_be_reached() -> None:
    rows = examined("--db", "postgresql://nobody@127.0.0.1:1/x")
    assert is_failed(rows["database"], "cannot connect", "pg_hba.conf")
    assert rows["database clock"]["status"] == "skipped"


def test_a_pooler_in_transaction_mode(postgres_url: str, tmp_path: Path) -> None:
    with pgbouncer(postgres_url, tmp_path) as pooled:
        rows = examined("--db", pooled)
    assert is_failed(rows["database notifications"], "do not arrive", "session mode")
    with pgbouncer(postgres_url, tmp_path, parameters="extra_float_digits") as pooled:
        rows = examined("--db", pooled)
    assert is_failed(rows["database"], "a pooler refuses", "session mode")


async def test_a_user_who_may_not_create_tables(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    await connection.execute("DROP ROLE IF EXISTS plane_doctor_guest")
    await connection.execute("CREATE ROLE plane_doctor_guest LOGIN")
    try:
        guest = postgres_url.replace("://postgres@", "://plane_doctor_guest@")
        assert guest != postgres_url
        assert is_failed(examined("--db", guest)["database schema"], "may not create tables", "OWNER TO")
    finally:
        await connection.execute("DROP ROLE plane_doctor_guest")
        await connection.close()


def test_a_taken_port_names_its_holder(postgres_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = configured(tmp_path, "Controller", db_url=postgres_url, bind_addr=f"127.0.0.1:{port}")
        row = examined(file)["port"]
    assert is_failed(row, f"(process {os.getpid()})", "--port")


def test_a_controller_that_cannot_be_reached(tmp_path: Path) -> None:
    assert is_failed(examined(drone(tmp_path))["controller"], "cannot be reached", "--controller-url")


def test_a_key_that_the_controller_refuses(cluster_of_dev: Cluster, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("pk_not-a-key-of-this-controller")
    url = cluster_of_dev.control_urls[0]
    row = examined(drone(tmp_path, controller_url=url, controller_key_file=str(key)))["controller"]
    assert is_failed(row, "refuses", "role node")


@pytest.fixture
def cluster_of_dev(tmp_path: Path) -> Iterator[Cluster]:
    with dev_cluster(tmp_path) as cluster:
        yield cluster


def test_backends_at_an_address_that_the_proxy_does_not_reach(cluster_of_dev: Cluster, tmp_path: Path) -> None:
    backend = cluster_of_dev.spawn("k")["backend_id"]
    cluster_of_dev.until_status(backend, "ready")
    key = tmp_path / "key"
    key.write_text(cluster_of_dev.api_key or "")
    url, name = cluster_of_dev.control_urls[0], f"localhost:{cluster_of_dev.proxy_port}"
    file = proxy(tmp_path, controller_url=url, controller_key_file=str(key), cluster=name)
    # In a network namespace of its own the machine has no way to anything.
    command: list[str | Path] = [
        "unshare",
        "--net",
        "sh",
        "-c",
        'ip link set lo up; exec "$@"',
        "sh",
        PLANE,
        "doctor",
        file,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "Operation not permitted" in done.stderr:
        real_parts.missing("network namespaces (root)")
    rows = {row["check"]: row for row in json.loads(done.stdout.splitlines()[-1])}
    assert rows["controller"]["status"] == "failed"
    assert rows["backends"]["status"] == "skipped"


def test_an_engine_that_is_not_there_and_one_that_hangs(tmp_path: Path) -> None:
    config = {"docker": {"socket": str(tmp_path / "docker.sock")}}
    row = examined(drone(tmp_path, executor_config=config))["Docker engine"]
    assert is_failed(row, "does not exist", "--docker-socket")
    with hanging_engine(tmp_path / "docker.sock"):
        row = examined(drone(tmp_path, executor_config=config))["Docker engine"]
        assert is_failed(row, "has not responded within 10 s", "systemctl restart docker")


@contextmanager
def hanging_engine(path: Path) -> Iterator[None]:
    """Accept connections, and never respond."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        accepted: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    accepted.append(listening.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in accepted:
            connection.close()


def test_certificates_that_browsers_refuse(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good = authority.json(authority.issue())

    def checked(path: Path, cluster: str = "localhost") -> dict[str, str]:
        ports = {"http_port": free_port(), "https_port": free_port()}
        return examined(proxy(tmp_path, cluster=cluster, cert_path=str(path), port_config=ports))["certificate"]

    assert checked(good)["status"] in ("ok", "warning")
    assert is_failed(checked(good, "plane.example.com"), "valid until", "plane.example.com")
    good.chmod(0o644)
    assert is_failed(checked(good), "others can read", "correct the file")
    good.chmod(0o600)
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    ended = trustme.CA().issue_cert("localhost", not_after=past)
    assert is_failed(checked(authority.json(ended)), "expired", "--acme-endpoint")
    assert is_failed(checked(tmp_path / "none.json"), "does not exist", "--acme-endpoint")


def test_a_cluster_name_that_does_not_resolve(tmp_path: Path) -> None:
    row = examined(proxy(tmp_path, cluster="plane-doctor.invalid"))["cluster name"]
    assert is_failed(row, "cannot be resolved", "address record")


def test_a_zone_that_is_not_delegated(tmp_path: Path) -> None:
    file = configured(tmp_path, "Dns", controller_url=UNREACHABLE, zone="acme.plane-doctor.invalid", port=0)
    assert is_failed(examined(file)["delegation"], "no name server", "NS record")


def test_a_drone_with_an_address_of_no_host(tmp_path: Path) -> None:
    assert is_failed(examined(drone(tmp_path, ip="0.0.0.0"))["address"], "not the address of a host", "--ip")


def test_few_open_files(tmp_path: Path) -> None:
    command: list[str | Path] = [
        "sh",
        "-c",
        'ulimit -n 1024 && exec "$@"',
        "sh",
        PLANE,
        "doctor",
        "--json",
        "--data-dir",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    rows = {row["check"]: row for row in json.loads(done.stdout.splitlines()[-1])}
    assert is_failed(rows["open files"], "1024", "LimitNOFILE")
    assert done.returncode == 1


def test_a_full_disk(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        real_parts.missing("a file system that may be mounted (root)")
    try:
        row = examined(drone(tmp_path, db_path=str(folder / "drone.sqlite")))["disk"]
        assert is_failed(row, "0.0 GiB free", "free space")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_people_read_the_same(tmp_path: Path) -> None:
    done = run("doctor", drone(tmp_path))
    assert done.status == 1
    assert "check --controller-url" in done.out
    assert "failed" in done.out
    assert "Traceback" not in done.err


def test_a_file_with_a_mistake_is_named(tmp_path: Path) -> None:
    done = run("doctor", drone(tmp_path, ip="not an address"))
    assert done.status == 1
    assert "Drone.json: ip:" in done.err
