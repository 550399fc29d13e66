"""`plane admin` against a live cluster: what an operator types, sees, and pipes into other programs."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from harness.clusters import Cluster, dev_cluster
from harness.commands import Done, run, run_on_terminal
from harness.program import program

CHECKOUT = Path(__file__).parents[2]
ESCAPE = "\x1b["


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all commands, which do not disturb each other."""
    with dev_cluster(tmp_path_factory.mktemp("admin"), "--runtime", "process") as running:
        yield running


def admin(cluster: Cluster, *arguments: str, **environment: str) -> Done:
    """A command as scripts written for the original have it: the controller comes first."""
    return run("admin", "--controller", cluster.control_urls[0], *arguments, **environment)


def unused_id(prefix: str) -> str:
    """A backend's id that a former try of the test did not take."""
    return f"{prefix}-{secrets.token_hex(4)}"


def name_of(cluster: Cluster) -> str:
    return f"localhost:{cluster.proxy_port}"


def connected(cluster: Cluster, *arguments: str) -> str:
    """The name of a backend that was started by the command line."""
    command = f"{sys.executable} -c \"import os; exec(os.environ['CODE'])\""
    code = cluster.executable()["env"]["CODE"]
    done = admin(cluster, "connect", "--command", command, "--env", f"CODE={code}", "--json", "--immediate", *arguments)
    assert done.status == 0, done.err
    name: str = done.json()["backend_id"]
    return name


def test_connect_prints_what_the_original_prints_and_follows_until_ready(cluster: Cluster) -> None:
    command = f"{sys.executable} -m http.server --bind 127.0.0.1 $PORT"
    first = admin(cluster, "connect", "--command", command, "--key", "followed")
    assert first.status == 0, first.err
    lines = first.out.splitlines()
    assert [line.split(": ")[0] for line in lines[:4]] == ["Created backend", "URL", "Status URL", "Drone"]
    assert [line.split()[2] for line in lines[4:]] == ["scheduled", "loading", "starting", "waiting", "ready"]
    url = lines[1].split()[-1]
    assert cluster.get(url).status == 200
    again = admin(cluster, "connect", "--command", command, "--key", "followed", "--immediate")
    assert again.out.startswith("Reusing backend")
    assert "Drone" not in again.out


def test_a_list_without_events_says_so_to_people_only(cluster: Cluster) -> None:
    assert admin(cluster, "events", "--type", "drone.lost").out == "No events\n"
    assert admin(cluster, "events", "--type", "drone.lost", "--json").out == ""


def test_terminate_follows_until_it_has_ended(cluster: Cluster) -> None:
    backend = connected(cluster, "--id", unused_id("to-be-ended"))
    # A backend that is terminated before its process was started has no exit.
    cluster.until_status(backend, "ready")
    done = admin(cluster, "terminate", backend, "--hard")
    assert done.status == 0, done.err
    assert done.out.splitlines()[0] == f"Killing backend {backend}"
    assert done.out.splitlines()[-1].split()[2:][:5] == [
        "terminated",
        "hard,",
        "external,",
        "exit",
        "error,",
    ]


def test_list_inspect_and_status_as_tables_and_as_json(cluster: Cluster) -> None:
    backend = connected(cluster, "--key", "listed", "--user", "ada")
    table = admin(cluster, "list", "--key", "listed").out.splitlines()
    assert table[0].split() == ["BACKEND", "STATUS", "FOR", "QUIET", "KEY", "DRONE"]
    assert max(len(line) for line in table) <= 80
    assert table[1].split()[0] == backend
    (listed,) = admin(cluster, "list", "--key", "listed", "--json").json()["backends"]
    assert (listed["id"], listed["key"]["name"], listed["drone"]) == (backend, "listed", "dr-dev-process")
    assert admin(cluster, "list", "--key", "nobody's").out == "No backends\n"
    shown = admin(cluster, "inspect", backend).out
    assert f"Backend           {backend}\n" in shown
    assert "scheduled" in shown
    assert admin(cluster, "inspect", backend, "--json").json()["tokens"] == 1
    assert admin(cluster, "backend-status", backend, "--immediate", "--json").json()["status"]
    assert admin(cluster, "status").out.splitlines()[0].split() == ["Status", "ok"]
    assert admin(cluster, "status", "--json").json()["status"] == "ok"
    assert admin(cluster, "revoke", backend, "--user", "ada").status == 0
    assert admin(cluster, "inspect", backend, "--json").json()["tokens"] == 0


def test_backend_status_prints_states_with_times_and_follows_until_terminated(cluster: Cluster, tmp_path: Path) -> None:
    backend = connected(cluster)
    arguments = ["admin", "backend-status", backend, "--controller", cluster.control_urls[0]]
    with program(arguments, tmp_path, "following") as following:
        following.says("scheduled")
        assert following.process.poll() is None
        assert admin(cluster, "terminate", backend, "--hard").status == 0
        assert following.process.wait(30) == 0
        lines = [line.split() for line in following.out.read_text().splitlines()]
    assert [line[2].rstrip(",") for line in lines][:2] == ["scheduled", "loading"]
    assert lines[-1][2] == "terminated"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", " ".join(line[:2])) for line in lines)
    # One that has ended has all its states at once.
    ended = admin(cluster, "backend-status", backend, "--json").out.splitlines()
    assert [json.loads(line)["status"] for line in ended] == [line[2] for line in lines]
    assert admin(cluster, "backend-status", "nobody").status == 1


def test_logs_are_shown_followed_and_kept_after_the_end(cluster: Cluster, tmp_path: Path) -> None:
    backend = unused_id("talkative")
    command = f"for i in 1 2 3; do echo line $i; done; exec {sys.executable} -m http.server --bind 127.0.0.1 $PORT"
    assert admin(cluster, "connect", "--command", command, "--id", backend).status == 0
    shown = admin(cluster, "logs", backend).out.splitlines()
    assert [line.split("Z  ")[1] for line in shown[:3]] == ["line 1", "line 2", "line 3"]
    (last,) = admin(cluster, "logs", backend, "-n", "1").out.splitlines()
    # The server may have written more by now. Lines begin with their times.
    assert last >= shown[-1]
    arguments = ["admin", "logs", backend, "--follow", "--json", "--controller", cluster.control_urls[0]]
    with program(arguments, tmp_path, "following") as following:
        following.says('"text":"line 3"')
        assert admin(cluster, "terminate", backend).status == 0
        # It ends with the backend.
        assert following.process.wait(30) == 0
    assert "line 1" in admin(cluster, "logs", backend).out
    assert "line 1" in admin(cluster, "inspect", backend).out
    assert admin(cluster, "logs", "nobody").status == 1


def test_drain_is_told_of_once_and_undone(cluster: Cluster) -> None:
    which = ("--cluster", name_of(cluster), "--drone", "dr-dev-process")
    assert "gets no more backends" in admin(cluster, "drain", *which).out
    assert "was draining already" in admin(cluster, "drain", *which).out
    state = admin(cluster, "cluster-state", name_of(cluster)).out
    assert "draining" in state
    assert {"dr-dev-process", "px-dev"} <= set(state.split())
    refused = admin(cluster, "connect", "--command", "true", "--key", "too late")
    assert refused.status == 1
    assert "HTTP status 500, error id " in refused.err
    assert "gets backends again" in admin(cluster, "undrain", *which).out
    (drone,) = admin(cluster, "cluster-state", name_of(cluster), "--json").json()["drones"]
    assert not drone["draining"]


def test_a_backend_that_never_becomes_ready_is_an_error(cluster: Cluster) -> None:
    done = admin(cluster, "connect", "--command", "/no/such/program")
    assert done.status == 1
    assert "terminated" in done.out
    assert "/no/such/program" in done.err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("connect",), 1, "either --image or --command"),
        (("connect", "--image", "a", "--command", "b"), 1, "either --image or --command"),
        (("connect", "--image", "a", "--env", "odd"), 1, "NAME=VALUE"),
        (("connect", "--command", "an 'open quote"), 1, "--command cannot be split"),
        (("connect", "--command", " "), 1, "--command is empty"),
        (("connect", "--command", "sh", "--key", ""), 1, "--key is empty"),
        (("connect", "--image", "a", "--max-idle-seconds", "-1"), 1, "max_idle_seconds"),
        (("inspect", "nobody"), 1, "Backend does not exist (HTTP status 404, error id "),
        (("terminate", "nobody"), 1, "Backend does not exist"),
        (("revoke", "nobody", "--user", "ada"), 1, "Backend does not exist"),
        (("cluster-state", "not a cluster"), 1, "Invalid cluster name"),
        (("drain", "--cluster", "c", "--drone", "dr-none"), 1, "Drone does not exist"),
        (("list", "--status", "odd"), 1, "query parameter status"),
        (("list", "--limit", "0"), 2, "--limit"),
        (("terminate",), 2, "BACKEND"),
        (("drain", "--cluster", "c"), 2, "--drone"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_errors_say_what_to_do(cluster: Cluster, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = admin(cluster, *arguments)
    assert done.status == status, done.err
    assert said in done.err + done.out
    assert "Traceback" not in done.err


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = run("admin", "status", PLANE_CONTROLLER=f"http://127.0.0.1:{port}")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"plane: controller at http://127.0.0.1:{port} does not respond: connection refused\n"


def test_who_waits_for_a_backend_that_does_not_serve_reads_what_is_missing(cluster: Cluster) -> None:
    command = f"sleep 1; exec {sys.executable} -m http.server $PORT"
    done = run_on_terminal("admin", "connect", "--command", command, "--controller", cluster.control_urls[0])
    assert done.status == 0
    assert "waiting until it responds to HTTP on the port in PORT" in done.out


def test_a_terminal_has_colours_unless_it_does_not_want_them_and_a_pipe_never_has(cluster: Cluster) -> None:
    key = f"coloured-{'x' * 100}"
    connected(cluster, "--key", key)
    command = ("admin", "list", "--key", key, "--controller", cluster.control_urls[0])
    assert ESCAPE in run_on_terminal(*command).out
    plain = run_on_terminal(*command, NO_COLOR="1").out
    assert "38;5" not in plain
    assert "\x1b[3" not in plain
    piped = run(*command, TERM="xterm-256color")
    assert ESCAPE not in piped.out
    # Wider than a terminal of 80 columns, and not cut.
    assert key in piped.out
    assert len(piped.out.splitlines()) == 2


def test_refusals_say_what_to_do_next(cluster: Cluster) -> None:
    for command, step in (
        (("inspect", "nobody"), "plane admin list --status all"),
        (("drain", "--cluster", name_of(cluster), "--drone", "nobody"), "plane admin top --once"),
        (("webhook", "test", "nobody"), "plane admin webhook list"),
    ):
        refused = admin(cluster, *command)
        assert refused.status == 1
        assert refused.err.rstrip().endswith(step), refused.err


def test_a_command_of_the_shell_is_run_by_one(cluster: Cluster) -> None:
    done = admin(cluster, "connect", "--command", "exec /bin/sh -c 'exit 7'")
    assert "exited with code 7" in done.err


def photograph(printed: str, title: str, file: Path) -> None:
    """Draw what a terminal of 80 columns shows."""
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(Text.from_ansi(printed.replace("\r\n", "\n").rstrip()))
    drawing = console.export_svg(title=title, unique_id="terminal")
    # Nothing is loaded from elsewhere.
    file.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.S))


def test_top_fits_80_columns(cluster: Cluster) -> None:
    for key in ("letter", "game-7", "notebook", "agent-3"):
        connected(cluster, "--key", key)
    options = ("--once", "--controller", cluster.control_urls[0])
    printed = run_on_terminal("admin", "top", *options, COLUMNS="80").out
    if folder := os.environ.get("PLANE_SCREENSHOTS"):
        photograph(printed, "plane admin top", CHECKOUT / folder / "top.svg")
    rows = [Text.from_ansi(line).plain.rstrip() for line in printed.splitlines()]
    nodes = [row.split() for row in rows if row.startswith(("dr-", "px-"))]
    assert nodes
    # No cell is folded into a second line, and what all nodes have in common is left out.
    assert all(len(row) <= 80 for row in rows)
    assert name_of(cluster) not in printed


def test_top_shows_nodes_and_backends(cluster: Cluster) -> None:
    backend = connected(cluster, "--key", "watched")
    seen = admin(cluster, "top", "--cluster", name_of(cluster))
    assert seen.status == 0, seen.err
    assert {"dr-dev-process", "px-dev", backend, "watched"} <= set(seen.out.split())
    once = run_on_terminal("admin", "top", "--once", "--controller", cluster.control_urls[0]).out
    assert "connected nodes" in once


def test_put_dummy_dns_takes_the_lease_and_a_second_one_is_refused(cluster: Cluster) -> None:
    first = admin(cluster, "put-dummy-dns", "--cluster", name_of(cluster))
    assert first.status == 0, first.err
    assert first.out.startswith("TXT value set: Dummy message from px-")
    second = admin(cluster, "put-dummy-dns", "--cluster", name_of(cluster))
    assert second.status == 1
    assert "another proxy has the lease" in second.err


def test_json_lines_can_be_read_by_programs(cluster: Cluster) -> None:
    backend = connected(cluster)
    lines = admin(cluster, "terminate", backend, "--json").out.splitlines()
    assert json.loads(lines[-1])["status"] == "terminated"
    assert all(json.loads(line)["time"] > 0 for line in lines)


def test_completion_scripts_name_the_commands(tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        script = run("completion", shell).out
        assert "put-dummy-dns" in script, shell
        assert "--max-idle-seconds" in script, shell
    assert run("completion", "tcsh").status == 2
