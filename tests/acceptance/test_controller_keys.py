"""API keys of nodes and operators: where they may stand, and where nobody sees them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from harness.clusters import Cluster, free_port, until
from harness.commands import run
from harness.program import EXECUTED, PLANE, program

CLUSTER = "plane.test"
WITHOUT_KEYS = "no API key: backends can control the cluster"


def made_key(folder: Path, name: str, role: str) -> str:
    """A new key that the controller admits."""
    command = [str(PLANE), "api-key", name, "--role", role, "--file", str(folder / "keys")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_no_key_of_a_node_or_an_operator_is_seen_in_the_list_of_processes(postgres_url: str, tmp_path: Path) -> None:
    node, admin = made_key(tmp_path, "nodes", "node"), made_key(tmp_path, "ops", "admin")
    (tmp_path / "node-key").write_text(f"{node}\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    dns = {"Dns": {"controller_url": url, "controller_key_file": "node-key", "name": "ns-a", "port": free_port()}}
    (tmp_path / "dns.json").write_text(json.dumps(dns))
    control = ["controller", "--db", postgres_url, "--port", str(port), "--api-key-file", "keys"]
    to = ["--controller-url", url, "--cluster", CLUSTER]
    ports = ["--host", "127.0.0.1", "--http-port", str(free_port())]
    by_file = ["--controller-key-file", "node-key"]
    in_url = ["--controller-url", url.replace("//", f"//{node}@"), "--cluster", CLUSTER]
    with (
        program(control, tmp_path, "controller", EXECUTED) as controller,
        program(
            ["drone", *to, "--name", "dr-a", "--runtime", "process"], tmp_path, "d", EXECUTED, PLANE_CONTROLLER_KEY=node
        ) as d,
        program(["proxy", *to, *by_file, "--name", "px-a", *ports], tmp_path, "p", EXECUTED) as p,
        program(["run-config", "dns.json"], tmp_path, "n", EXECUTED) as n,
    ):
        until(lambda: all(f"node={name}" in controller.log.read_text() for name in ("dr-a", "px-a", "ns-a")))
        seen = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert node not in seen
        # The operator, by each way.
        (tmp_path / "admin-key").write_text(admin)
        for arguments, environment in (
            (["--controller-key-file", str(tmp_path / "admin-key")], {}),
            ([], {"PLANE_CONTROLLER_KEY": admin}),
            ([], {"PLANE_CONTROLLER_KEY_FILE": str(tmp_path / "admin-key")}),
        ):
            done = run("admin", "list", "--controller", url, *arguments, **environment)
            assert done.status == 0, done.err
        # A node is no operator and no application.
        refused = run("admin", "list", "--controller", url, PLANE_CONTROLLER_KEY=node)
        assert (refused.status, "has the role node" in refused.err) == (1, True)
        cluster = Cluster([url], 0, api_key=node)
        assert cluster.call("POST", "/ctrl/connect", {}).status == 403
        assert cluster.call("POST", f"/ctrl/c/{CLUSTER}/d/dr-a/drain").status == 403
        # As before: in the URL, with a warning that does not repeat it.
        with program(["drone", *in_url, "--name", "dr-b", "--runtime", "process"], tmp_path, "old") as old:
            old.says("api key in a command line")
            until(lambda: "node=dr-b" in controller.log.read_text())
        assert WITHOUT_KEYS not in d.log.read_text()
        for running in (controller, d, p, n, old):
            said = running.log.read_text() + running.out.read_text()
            assert node not in said
            assert admin not in said


def test_no_error_of_the_command_line_repeats_a_key(tmp_path: Path) -> None:
    key = "pk_a-key-that-is-planted-here"
    for url in (f"htp://{key}@c", f"http://{key}@c:notaport", f"{key}@c", f"http://{key}@127.0.0.1:1"):
        for command in (["drone", "--cluster", "c", "--controller-url", url], ["admin", "status", "--controller", url]):
            if "127.0.0.1" not in url or command[0] == "admin":
                done = run(*command)
                assert done.status == 1
                assert key not in done.out + done.err
    (tmp_path / "empty").touch()
    for path, said in ((tmp_path / "empty", "one line"), (tmp_path / "none", "cannot be read")):
        done = run("admin", "status", "--controller-key-file", str(path))
        assert (done.status, said in done.err) == (1, True)


def test_a_drone_whose_processes_can_control_the_cluster_says_so_once(tmp_path: Path) -> None:
    arguments = ["drone", "--controller-url", "http://127.0.0.1:1", "--cluster", "c", "--runtime", "process"]
    with program(arguments, tmp_path, "drone") as drone:
        drone.says(WITHOUT_KEYS)
        drone.says("controller not reached")
        assert drone.log.read_text().count(WITHOUT_KEYS) == 1
