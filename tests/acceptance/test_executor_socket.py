"""A drone that leaves its backends to `plane executor`; each side is killed in the middle of what it does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.clusters import GRACE_S, Cluster, exposed, processes_of, separate_parts, until
from harness.program import Program, program


class Pair:
    """A cluster whose drone has an external executor of processes."""

    def __init__(self, stack: ExitStack, db: str, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._socket = folder / "executor.sock"
        self.executor = self.start_executor()
        options = ("--executor-socket", str(self._socket))
        self.cluster: Cluster = stack.enter_context(separate_parts(db, folder, controllers=1, drone=options))
        self.cluster.image = f"{sys.executable} -c \"import os; exec(os.environ['CODE'])\""

    def start_executor(self) -> Program:
        arguments = ["executor", "--socket", str(self._socket), "--runtime", "process", *exposed()]
        arguments += ["--soft-terminate-grace", str(GRACE_S)]
        self.executor = self._stack.enter_context(program(arguments, self._folder, "executor"))
        until(self._socket.exists)
        return self.executor


@pytest.fixture
def pair(postgres_url: str, tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, postgres_url, tmp_path)


def test_a_whole_life(pair: Pair) -> None:
    cluster = pair.cluster
    backend = cluster.spawn("k", MODE="graceful")
    cluster.until_status(backend["backend_id"], "ready")
    session = cluster.get(backend["url"]).json()["session"]
    assert (session["KEY"], session["ID"]) == ("k", backend["backend_id"])
    cluster.call("POST", f"/ctrl/b/{backend['backend_id']}/soft-terminate")
    assert cluster.history(backend["backend_id"])[-1]["exit_error"] is False
    exits = cluster.spawn("k")
    assert cluster.get(exits["url"], "exit?3").status == 502
    assert cluster.until_status(exits["backend_id"], "terminated")["message"] == "exited with code 3"
    wrong = cluster.connect(spawn_config={"executable": {"image": "/no/such/program"}})
    assert "does not exist" in cluster.until_status(wrong["backend_id"], "terminated")["message"]
    unparsable = cluster.connect(spawn_config={"executable": {"image": "echo 'never closed"}})
    assert "No closing quotation" in cluster.until_status(unparsable["backend_id"], "terminated")["message"]
    answer = cluster.call("GET", f"/ctrl/b/{backend['backend_id']}/logs")
    assert "external executor" in answer.json()["message"]
    assert pair.executor.stop() == 0
    assert "Traceback" not in pair.executor.log.read_text()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_drone_is_restarted(pair: Pair, how: signal.Signals) -> None:
    cluster = pair.cluster
    kept, ends = cluster.spawn("kept"), cluster.spawn("ends")
    for backend in (kept, ends):
        cluster.until_status(backend["backend_id"], "ready")
    with cluster.tunnel(kept["url"]) as tunnel:
        starting = cluster.spawn("starting")
        cluster.programs["drone"].stop(how)
        assert cluster.get(ends["url"], "exit?7").status == 502
        cluster.start_again("drone")
        assert cluster.until_status(ends["backend_id"], "terminated")["message"] == "exited with code 7"
        cluster.until_status(starting["backend_id"], "ready")
        tunnel.sendall(b"still there")
        assert tunnel.recv(100) == b"still there"
        assert cluster.status(kept["backend_id"])["status"] == "ready"


def test_the_executor_is_killed(pair: Pair) -> None:
    cluster = pair.cluster
    backends = [cluster.spawn(f"k{number}")["backend_id"] for number in range(3)]
    cluster.until_status(backends[0], "ready")
    pair.executor.stop(signal.SIGKILL)
    # Asked for while no executor is there; done when one is.
    later = cluster.spawn("later")["backend_id"]
    pair.start_executor()
    entry = cluster.until_status(backends[0], "terminated")
    assert "its executor was restarted" in entry["message"]
    cluster.until_status(later, "ready")
    for backend in backends[1:]:
        until(lambda backend=backend: cluster.status(backend)["status"] in ("ready", "terminated"))  # type: ignore[misc]
        assert (cluster.status(backend)["status"] == "ready") == bool(processes_of(backend))


def test_the_executor_hangs_in_every_request(pair: Pair) -> None:
    cluster = pair.cluster
    ready = cluster.spawn("ready")["backend_id"]
    cluster.until_status(ready, "ready")
    pair.executor.process.send_signal(signal.SIGSTOP)
    spawned = cluster.spawn("new")["backend_id"]
    cluster.call("POST", f"/ctrl/b/{ready}/soft-terminate")
    cluster.until_status(ready, "terminating")
    cluster.until_status(spawned, "loading")
    # Killed with both requests unanswered.
    pair.executor.stop(signal.SIGKILL)
    pair.start_executor()
    cluster.until_status(ready, "terminated")
    cluster.until_status(spawned, "ready")
    statuses = [entry["status"] for entry in cluster.history(ready)]
    assert statuses.count("terminated") == 1
