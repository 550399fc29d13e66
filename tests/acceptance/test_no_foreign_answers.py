"""Whatever is killed, stopped or cut: a token is answered by its own backend, or by an error."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from harness.clusters import AS_DRONE, BACKEND, Cluster, processes_of, separate_parts, until

ROUNDS = 10
FAULTS = 3  # in each round
# Few enough that they would soon be given again if that were allowed, enough for all that are started here.
PORTS = "19000-19199"
SLOW = "import os, random, time; time.sleep(random.random() / 2); exec(os.environ['CODE'])"


class Client:
    """Holds all tokens that it was ever given, and keeps using them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._pool = ThreadPoolExecutor(8)
        self.tokens: list[tuple[str, str]] = []
        self.answered = 0

    def connect(self, key: str) -> bool:
        """Ask for a backend for a key; False: it was refused, since parts are down."""
        config = {
            "executable": {"command": [sys.executable, "-c", SLOW], "env": {"CODE": BACKEND}, "isolation": "none"}
        }
        try:
            answer = self._cluster.call("POST", "/ctrl/connect", {"key": {"name": key}, "spawn_config": config})
        except OSError:
            return False
        if answer.status == 200:
            body = answer.json()
            self._cluster.spawned.append(body["backend_id"])
            self.tokens.append((body["backend_id"], body["url"]))
        return answer.status == 200

    def use_all(self) -> int:
        """Use each token; returns how many were answered by their backend."""
        answered = sum(self._pool.map(self._use, self.tokens))
        self.answered += answered
        return answered

    def _use(self, token: tuple[str, str]) -> bool:
        backend, url = token
        try:
            answer = self._cluster.get(url, timeout_s=0.5)
        except OSError:
            return False
        if answer.status != 200:
            assert answer.status in (410, 502, 503, 504), answer
            return False
        session: dict[str, Any] = answer.json()["session"]
        assert session["ID"] == backend, f"a token of {backend} was answered by {session}"
        return True


def disturb(cluster: Cluster, client: Client, chance: random.Random) -> None:
    """One fault: a killed backend, a killed part, a part that is stopped for a while, or a cut connection."""
    part = chance.choice(["drone", "proxy", "controller-0"])
    program = cluster.programs[part]
    match chance.choice(["backend", "backend", "kill", "stop", "cut"]):
        case "backend":
            for backend, _ in chance.sample(client.tokens, min(4, len(client.tokens))):
                for pid in processes_of(backend):
                    kill(pid)
        case "kill":
            program.stop(signal.SIGKILL)
            cluster.start_again(part)
        case "stop":
            program.process.send_signal(signal.SIGSTOP)
            client.use_all()
            program.process.send_signal(signal.SIGCONT)
        case _:
            # Nodes connect anew; what happened meanwhile they were not told of.
            cluster.programs["controller-0"].stop(signal.SIGKILL)
            for backend, _ in client.tokens[-2:]:
                for pid in processes_of(backend):
                    kill(pid)
            cluster.start_again("controller-0")


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_token_is_never_answered_by_another_keys_process(postgres_url: str, tmp_path: Path) -> None:
    chance = random.Random(14)
    options = ("--backend-ports", PORTS, *AS_DRONE)
    with separate_parts(postgres_url, tmp_path, controllers=1, drone=options) as cluster:
        client = Client(cluster)
        for round_ in range(ROUNDS):
            # When a key can be had again, for all of them, and slow starts overlap.
            until(partial(client.connect, f"key-{round_ % 5}"))
            for number in range(4):
                client.connect(f"key-{(round_ + number) % 5}")
            client.use_all()
            for _ in range(FAULTS):
                disturb(cluster, client, chance)
                client.use_all()
        until(lambda: client.connect("last") and client.use_all() > 0)
        assert client.answered > ROUNDS
