"""`plane dev`: one command, nothing installed, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from harness.clusters import Cluster, dev_cluster, dev_key, free_port, until
from harness.commands import run
from harness.program import program
from plane.dev.access_key import installation_id, load_key


def pasted(cluster: Cluster, words: str) -> str:
    """What the line with these words, which the program has printed, prints when it is pasted into a shell."""
    line = next(line for line in cluster.programs["dev"].out.read_text().splitlines() if words in line)
    return subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True).stdout


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of running processes that name the folder, or the one where its database lies.

    As root the database lies elsewhere, in a folder to which a link in ``.plane`` leads.
    """
    names = {str(folder), str((folder / ".plane" / "postgres" / "data").resolve())}
    lines = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in lines if any(name in line for name in names)]


def test_the_pasted_lines_connect_and_show_the_database(tmp_path: Path) -> None:
    with dev_cluster(tmp_path) as cluster:
        answer = json.loads(pasted(cluster, "curl "))
        page = cluster.get(answer["url"])
        assert page.status == 200
        assert answer["backend_id"] in page.body.decode()
        assert "px-dev" in pasted(cluster, "db list-nodes")
        front = cluster.get(cluster.control_urls[0] + "/")
        assert b"Open the demo" in front.body
        assert processes_of(tmp_path), "the database's processes are recognized while they run"
        assert cluster.programs["dev"].stop(signal.SIGINT) == 0
        assert processes_of(tmp_path) == []
        assert "Traceback" not in cluster.programs["dev"].log.read_text()
        # A selection in a terminal or in a log has nothing invisible.
        printed = cluster.programs["dev"].out.read_text().splitlines()
        assert [line for line in printed if line != line.rstrip()] == []


def test_data_survives_and_a_killed_one_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    with dev_cluster(tmp_path) as cluster:
        backend = cluster.spawn("k")["backend_id"]
        cluster.until_status(backend, "ready")
        cluster.programs["dev"].stop(signal.SIGKILL)
        until(lambda: processes_of(tmp_path) == [])
    with dev_cluster(tmp_path) as cluster:
        assert cluster.until_status(backend, "terminated")["message"] == "its drone was restarted"
        assert cluster.get(cluster.spawn("k")["url"]).status == 200


def test_a_second_start_on_the_same_folder_names_the_first(tmp_path: Path) -> None:
    with dev_cluster(tmp_path) as cluster:
        pid = cluster.programs["dev"].process.pid
        ports = ["--port", str(free_port()), "--proxy-port", str(free_port())]
        with program(["dev", *ports], tmp_path, "second") as second:
            assert second.process.wait(20) == 1
            assert f"in use by another `plane dev` (process {pid})" in second.log.read_text()


def test_ports_in_use_are_named_with_their_process_and_the_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("0.0.0.0", 0)) as other:
        port, proxy_port = taken.getsockname()[1], other.getsockname()[1]
        with program(["dev", "--port", str(port), "--proxy-port", str(proxy_port)], tmp_path, "dev") as refused:
            assert refused.process.wait(20) == 1
            said = refused.log.read_text()
    for number, flag in ((port, "--port"), (proxy_port, "--proxy-port")):
        holder = (
            rf"port {number} on 127\.0\.0\.1 is in use by .+ \(process {os.getpid()}\); choose another with {flag}\n"
        )
        assert re.search(holder, said), said
    assert processes_of(tmp_path) == []


def test_one_port_for_both_is_refused(tmp_path: Path) -> None:
    port = str(free_port())
    done = run("dev", "--port", port, "--proxy-port", port, "--data-dir", str(tmp_path / "data"))
    message = f"plane: --port and --proxy-port are both {port}; choose another for one of them\n"
    assert (done.status, done.err) == (1, message)


def test_a_client_that_waits_for_the_control_api_finds_a_drone(tmp_path: Path) -> None:
    port = free_port()
    cluster = Cluster([f"http://127.0.0.1:{port}"], free_port())
    arguments = ["dev", "--port", str(port), "--proxy-port", str(cluster.proxy_port), "--runtime", "process"]
    for _ in range(2):
        with program(arguments, tmp_path, "dev"):
            until(lambda: is_healthy(cluster))
            cluster.api_key = dev_key(tmp_path)
            assert cluster.get(cluster.spawn("k")["url"]).status == 200


def is_healthy(cluster: Cluster) -> bool:
    try:
        return cluster.call("GET", "/pub/health").status == 200
    except OSError:
        return False


def test_on_a_database_of_ones_own(postgres_url: str, tmp_path: Path) -> None:
    with dev_cluster(tmp_path, "--db", postgres_url) as cluster:
        assert cluster.get(cluster.spawn("k")["url"]).status == 200
        assert not (tmp_path / ".plane" / "postgres").exists()


def test_auto_offers_containers_in_a_pool_where_an_engine_answers(
    docker_engine: Path, docker_image: str, tmp_path: Path
) -> None:
    with dev_cluster(tmp_path, "--docker-socket", str(docker_engine)) as cluster:
        said = cluster.programs["dev"].out.read_text()
        assert 'docker (pool "docker")' in said
        assert cluster.get(cluster.spawn("k")["url"]).status == 200
        cluster.image = docker_image
        contained = cluster.spawn("c", spawn={"pool": "docker"})
        assert contained["drone"] == "dr-dev-docker"
        assert cluster.get(contained["url"]).status == 200
        # The drones of all have the same names, and may share an engine.
        inspect = ["docker", "-H", f"unix://{docker_engine}", "inspect", f"plane-{contained['backend_id']}"]
        (found,) = json.loads(subprocess.run(inspect, check=True, capture_output=True).stdout)
        own = installation_id(load_key(tmp_path / ".plane"))
        assert found["Config"]["Labels"]["dev.plane.installation"] == own


def test_only_docker(docker_engine: Path, docker_image: str, tmp_path: Path) -> None:
    with dev_cluster(tmp_path, "--runtime", "docker", "--docker-socket", str(docker_engine)) as cluster:
        cluster.image = docker_image
        assert cluster.get(cluster.spawn("k")["url"]).status == 200
        # The demo is a process: there is no page that could not open it.
        assert cluster.call("GET", "/").status == 404


def test_docker_that_is_not_there_is_said(tmp_path: Path) -> None:
    ports = ["--port", str(free_port()), "--proxy-port", str(free_port())]
    arguments = ["dev", *ports, "--runtime", "docker", "--docker-socket", str(tmp_path / "none.sock")]
    with program(arguments, tmp_path, "dev") as refused:
        assert refused.process.wait(30) == 1
        assert "no Docker engine responds at" in refused.log.read_text()


def test_a_signal_in_the_middle_of_a_start_leaves_nothing(tmp_path: Path) -> None:
    ports = ["--port", str(free_port()), "--proxy-port", str(free_port())]
    for delay_s in (0.3, 0.6, 0.9):
        with program(["dev", *ports], tmp_path, "dev") as interrupted:
            time.sleep(delay_s)
            interrupted.stop(signal.SIGTERM)
        until(lambda: processes_of(tmp_path) == [])
    with dev_cluster(tmp_path) as cluster:
        assert cluster.get(cluster.spawn("k")["url"]).status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's database belongs to another user")
def test_backends_see_nothing_of_the_cluster(tmp_path: Path) -> None:
    # pytest's folder is root's alone, so that the database lies elsewhere, as below /root.
    with dev_cluster(tmp_path) as cluster:
        data = (tmp_path / ".plane/postgres/data").resolve()
        assert (data / "PG_VERSION").exists()
        assert tmp_path not in data.parents
        script = f"id -u; ls {data} {data.parent}/socket {tmp_path}/.plane && echo seen; exit 3"
        backend = cluster.connect(spawn_config={"executable": {"command": ["/bin/sh", "-c", script]}})["backend_id"]
        message = cluster.until_status(backend, "terminated")["message"]
        assert "exited with code 3" in message
        assert "seen" not in message, message
        assert "PG_VERSION" not in message


def test_a_program_below_tmp_is_explained_and_can_be_exposed(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="plane-test-"))
    program = folder / "program"
    program.write_text("#!/bin/sh\necho it runs\nexit 9\n")
    program.chmod(0o755)
    folder.chmod(0o755)
    try:
        for options, says in (((), "--expose"), (("--expose", str(folder)), "it runs")):
            with dev_cluster(tmp_path, "--runtime", "process", *options) as cluster:
                backend = cluster.connect(spawn_config={"executable": {"command": [str(program)]}})["backend_id"]
                assert says in cluster.until_status(backend, "terminated")["message"]
    finally:
        shutil.rmtree(folder)
