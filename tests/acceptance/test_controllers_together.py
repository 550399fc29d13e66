"""Three controllers on one database under random load make a history that a single one could have made.

500 operations on 20 keys by 16 clients. Checked: never two backends of one key alive, fencing tokens rise, tags are
honoured, and who is given a backend is given the one that holds the key.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness.clusters import free_port
from harness.fake_node import CLUSTER, FakeNode, fake_drone
from harness.program import program
from plane.database.embedded.server import embedded_postgres

LIMIT_S = 30.0
CONTROLLERS, CLIENTS, KEYS, OPERATIONS = 3, 16, 20, 500
TAGS = ("a", "b")
IMAGE: dict[str, Any] = {"executable": {"image": "example/image"}}


@dataclass
class Life:
    """One backend as its drone saw it. Times are those of this process."""

    backend: str
    key: str
    tag: str
    fencing_token: int
    began: float
    ended: float | None = None


@dataclass
class History:
    lives: dict[str, Life] = field(default_factory=dict)
    answers: list[tuple[dict[str, Any], float, float, int, dict[str, Any]]] = field(default_factory=list)


async def obey(drone: FakeNode, history: History, chance: random.Random) -> None:
    """Do what the controllers order, after a while or at once."""
    event_id = 0

    async def report(backend: str, state: dict[str, Any]) -> None:
        nonlocal event_id
        event_id += 1
        content = {"event_id": event_id, "backend_id": backend, "state": state, "timestamp": 1}
        await drone.send("BackendEvent", content)

    async def carry_out(action: dict[str, Any]) -> None:
        backend, order = action["backend_id"], action["action"]
        if "Spawn" in order and backend not in history.lives:
            key = order["Spawn"]["key"]
            config = key["key"]
            history.lives[backend] = Life(backend, config["name"], config["tag"], key["token"], time.monotonic())
            for status in ("loading", "starting"):
                await report(backend, {"status": status})
            await report(backend, {"status": "ready", "address": "127.0.0.1:1"})
        elif "Terminate" in order and history.lives[backend].ended is None:
            await asyncio.sleep(chance.uniform(0, 0.02))
            # It is over before anybody can hear that it is.
            history.lives[backend].ended = time.monotonic()
            await report(backend, {"status": "terminated", "last_status": "ready", "exit_code": 0})
        await drone.send("AckAction", {"action_id": action["action_id"]})

    while True:
        try:
            async with asyncio.timeout(4):
                action = await drone.receive("Action")
        except TimeoutError:
            await drone.beat()
        else:
            await carry_out(action)


async def operate(http: aiohttp.ClientSession, bases: list[str], history: History, chance: random.Random) -> None:
    """One random operation at a random controller."""
    base = chance.choice(bases)
    if history.lives and chance.random() < 0.35:
        backend = chance.choice(list(history.lives))
        kind = chance.choice(("soft", "hard"))
        async with http.post(f"{base}/ctrl/b/{backend}/{kind}-terminate") as answer:
            assert answer.status == 200
        return
    key = {"name": f"k{chance.randrange(KEYS)}", "tag": chance.choice(TAGS)}
    start = time.monotonic()
    async with http.post(f"{base}/ctrl/connect", json={"key": key, "spawn_config": IMAGE}) as answer:
        body = await answer.json()
        history.answers.append((key, start, time.monotonic(), answer.status, body))


@pytest.fixture
def url_of_postgres(request: pytest.FixtureRequest) -> str | None:
    """Asked for before the event loop runs."""
    if request.param == "embedded":
        return None
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.mark.parametrize("url_of_postgres", ["postgres", "embedded"], indirect=True)
async def test_the_history_is_one_that_a_single_controller_could_have_made(
    url_of_postgres: str | None, tmp_path: Path
) -> None:
    history = History()
    async with AsyncExitStack() as stack:
        url = url_of_postgres
        if url is None:
            url = await stack.enter_async_context(embedded_postgres(tmp_path / "postgres"))
        ports = [free_port() for _ in range(CONTROLLERS)]
        options = ["controller", "--default-cluster", CLUSTER, "--db", url, "--port"]
        controllers = [
            stack.enter_context(program([*options, str(port)], tmp_path, f"controller-{port}")) for port in ports
        ]
        for controller in controllers:
            await asyncio.to_thread(controller.says, "controller listening")
        bases = [f"http://127.0.0.1:{port}" for port in ports]
        http = await stack.enter_async_context(aiohttp.ClientSession())
        tasks = []
        for number, base in enumerate(bases):
            drone = await stack.enter_async_context(fake_drone(base, f"dr-{number}"))
            tasks.append(asyncio.create_task(obey(drone, history, random.Random(number))))
        left = iter(range(OPERATIONS))

        async def client(number: int) -> None:
            own = random.Random(f"client {number}")
            for _ in left:
                await operate(http, bases, history, own)

        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        # The last orders are on their way to their drones.
        async with asyncio.timeout(LIMIT_S):
            while not set(spawned(history)) <= history.lives.keys():
                await asyncio.sleep(0.02)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for controller in controllers:
            assert "[error" not in controller.log.read_text()
    check(history)


def spawned(history: History) -> list[str]:
    """The backends that were started, as the clients were told."""
    return [body["backend_id"] for _, _, _, status, body in history.answers if status == 200 and body["spawned"]]


def check(history: History) -> None:
    by_key: dict[str, list[Life]] = defaultdict(list)
    for life in sorted(history.lives.values(), key=lambda life: life.began):
        by_key[life.key].append(life)
    for lives in by_key.values():
        for former, later in itertools.pairwise(lives):
            assert former.ended is not None
            assert former.ended <= later.began, "two backends of one key at once"
            assert former.fencing_token < later.fencing_token, "fencing tokens must rise"
    started = spawned(history)
    assert len(started) == len(set(started)) == len(history.lives)
    for key, start, end, status, body in history.answers:
        if status == 200:
            life = history.lives[body["backend_id"]]
            assert (life.key, life.tag) == (key["name"], key["tag"])
            # Its end may be on its way from the drone to the database, for a moment.
            assert life.ended is None or life.ended >= start - 2
        else:
            # A tag that differs, or a key that changed hands three times meanwhile.
            assert (status, body["kind"]) in {(409, "KeyHeld"), (500, "FailedToAcquireKey"), (409, "FailedToRemoveKey")}
            if body["kind"] == "KeyHeld":
                others = [life for life in by_key[key["name"]] if life.tag != key["tag"]]
                assert any(life.began <= end + 1 and (life.ended is None or life.ended >= start - 1) for life in others)
    assert len(history.lives) > KEYS, "the test must see keys change hands"
