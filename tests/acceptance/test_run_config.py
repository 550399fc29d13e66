"""`plane run-config`: a whole cluster from files, with the original's names of fields; and what is wrong with one."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness.clusters import Cluster, free_port, until
from harness.commands import run
from harness.program import Program, program
from plane.dev.demo import visible_folders


def test_every_component_runs_from_a_file(postgres_url: str, tmp_path: Path) -> None:
    port, proxy_port, dns_port = free_port(), free_port(), free_port()
    name, url = f"localhost:{proxy_port}", f"http://127.0.0.1:{port}"
    files: dict[str, dict[str, Any]] = {
        "Controller": {
            "db_url": postgres_url,
            "bind_addr": f"127.0.0.1:{port}",
            "id": "co-file",
            "controller_url": url,
            "default_cluster": name,
            "cleanup_min_age_days": None,
            "cleanup_batch_size": 100,
            "forward_auth": None,
        },
        "Drone": {
            "name": "dr-file",
            "controller_url": url,
            "cluster": name,
            "pool": "",
            "ip": "127.0.0.1",
            "db_path": str(tmp_path / "drone.sqlite"),
            "executor_config": {"unix_socket": {"socket_path": str(tmp_path / "executor.sock")}},
            "terminate_on_exit": True,
            "cleanup_min_age": None,
        },
        "Proxy": {
            "name": "px-file",
            "controller_url": url,
            "cluster": name,
            "cert_path": None,
            "port_config": {"http_port": proxy_port, "https_port": None},
            "acme_config": None,
            "root_redirect_url": None,
        },
        "Dns": {"name": "ns-file", "controller_url": url, "port": dns_port, "zone": "acme.test"},
        "Executor": {
            "socket_path": str(tmp_path / "executor.sock"),
            "executor_config": {"process": {"expose": [str(path) for path in visible_folders()]}},
        },
    }
    with ExitStack() as stack:
        started: dict[str, Program] = {}
        for component, fields in files.items():
            file = tmp_path / f"{component}.json"
            file.write_text(json.dumps({component: fields}))
            started[component] = stack.enter_context(program(["run-config", str(file)], tmp_path, component))
            if component == "Controller":
                started[component].says("controller listening")
        cluster = Cluster([url], proxy_port, programs=started)
        # An executor of processes takes the image as a command line.
        cluster.image = f"{sys.executable} -c \"import os; exec(os.environ['CODE'])\""

        def connected() -> set[str]:
            return {node["name"] for node in cluster.call("GET", "/ctrl/nodes").json()["nodes"]}

        until(lambda: connected() == {"dr-file", "px-file", "ns-file"})
        until(lambda: cluster.call("GET", f"/ctrl/c/{name}/state").json()["drones"])
        assert cluster.get(cluster.spawn("k")["url"]).status == 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# a comment", "config.json: not JSON: invalid character (byte 0)\n"),
        ("{}", "exactly one of Controller, Drone, Proxy, Dns, Executor"),
        ('{"Controller": {"db_url": "x"}, "Dns": {"controller_url": "x"}}', "exactly one of"),
        ('{"Controller": {"db_url": 5}}', "$.Controller.db_url"),
        ('{"Controller": {"db_url": "x", "bindaddr": "y"}}', "unknown field `bindaddr`"),
        ('{"Controller": {"db_url": "x", "bind_addr": "localhost"}}', "bind_addr"),
        ('{"Controller": {"db_url": "x", "best_of": 0}}', "best_of"),
        (
            '{"Controller": {"db_url": "x", "controller_url": "c:80"}}',
            "controller_url: 'c:80' is not of the form http://",
        ),
        ('{"Drone": {"controller_url": "http://c", "cluster": "not a cluster"}}', "cluster: Invalid cluster name"),
        ('{"Proxy": {"controller_url": "http://c", "cluster": "c", "name": "dr-x"}}', "name: name 'dr-x'"),
        (
            '{"Proxy": {"controller_url": "http://c", "cluster": "c", "port_config": {"http_port": 1, "https_port": 2}'
            "}}",
            "needs a certificate: cert_path",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_field(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    done = run("run-config", str(file))
    assert done.status == 1
    assert done.err.startswith(f"plane: {file}: ")
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_file_that_is_not_there_and_a_schema_for_editors(tmp_path: Path) -> None:
    assert "cannot be read" in run("run-config", str(tmp_path / "none.json")).err
    assert "name a file" in run("run-config").err
    schema = json.loads(run("run-config", "--schema").out)
    fields = schema["$defs"]["ControllerConfig"]["properties"]
    assert {"db_url", "bind_addr", "forward_auth"} <= set(fields)
