"""Clients: each wants one key, and connects, reads, holds a tunnel, terminates and revokes at random."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from faults.cluster import CLUSTER, CONTROLLER_PORT, DOCKER_POOL, PROXY_PORT
from faults.docker_engine import IMAGE
from faults.history import Completed, Invoked, Record
from faults.hosts import Host

__all__ = ["CHURN_WEIGHTS", "DOCKER_KEY", "WEIGHTS", "Clients"]

BACKEND = (Path(__file__).parent / "backend_program.py").read_text()
CALL_TIMEOUT_S = 8.0
TUNNEL_S = 20.0
PAUSE_S = 0.6
# Keys whose processes are containers begin with this. Their clients pause for so many times as long.
DOCKER_KEY = "docker-key"
DOCKER_PAUSES = 4
# How many links of earlier connects a client keeps, and how many of its reads use one of them.
KEPT_LINKS = 6
KEPT_LINK_SHARE = 0.25
# How often a client does what, in its order: connect, read, hold a tunnel, follow the states, terminate, revoke.
WEIGHTS = (30, 50, 6, 6, 5, 3)
# The same where processes are to end and start all the time.
CHURN_WEIGHTS = (30, 50, 6, 6, 40, 3)


class Clients:
    """All clients of a run.

    Args:
        weights: how often a client does what.

    Attributes:
        records: what they have done.
    """

    def __init__(
        self,
        controllers: Sequence[Host],
        proxies: Sequence[Host],
        observer: Path,
        seed: int,
        now: Callable[[], float],
        weights: Sequence[int] = WEIGHTS,
    ) -> None:
        self.weights = weights
        self.records: list[Record] = []
        self._controllers = controllers
        self._proxies = proxies
        self._observer = observer
        self._now = now
        self._random = random.Random(seed)
        self._ops = itertools.count(1)

    async def run(self, keys: Sequence[str], clients_of_a_key: int) -> None:
        """Use the cluster until cancelled."""
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http, asyncio.TaskGroup() as tasks:
            for key in keys:
                for number in range(clients_of_a_key):
                    tasks.create_task(_Client(self, http, key, f"user-{number}").run())

    def invoke(self, kind: str, key: str, target: Host, **detail: Any) -> int:
        """Record that an operation begins; returns its number."""
        op = next(self._ops)
        self.records.append(Invoked(self._now(), op, kind, key, target.name, detail))
        return op

    def complete(self, op: int, outcome: str, **detail: Any) -> None:
        """Record that an operation is over."""
        self.records.append(Completed(self._now(), op, outcome, detail))

    def controller(self) -> Host:
        return self._random.choice(self._controllers)

    def proxy(self) -> Host:
        return self._random.choice(self._proxies)

    @property
    def random(self) -> random.Random:
        return self._random

    def now(self) -> float:
        return self._now()

    def spawn_config(self, key: str) -> dict[str, Any]:
        """What runs the process of a key."""
        if key.startswith(DOCKER_KEY):
            # The folder of the observer's socket is mounted.
            folder, observer = self._observer.parent.name, f"/plane-data/{self._observer.name}"
            env = {"CODE": BACKEND, "FAULTS_KEY": key, "FAULTS_OBSERVER": observer, "FAULTS_HOST": "docker-1"}
            executable = {"image": IMAGE, "pull_policy": "Never", "env": env, "mount": folder}
            return {"pool": DOCKER_POOL, "executable": executable}
        env = {"CODE": BACKEND, "FAULTS_KEY": key, "FAULTS_OBSERVER": str(self._observer)}
        command = ["/usr/bin/python3", "-S", "-E", "-c", "import os; exec(os.environ['CODE'])"]
        return {"executable": {"command": command, "env": env, "isolation": "none"}}


class _Client:
    """One client of one key."""

    def __init__(self, clients: Clients, http: aiohttp.ClientSession, key: str, user: str) -> None:
        self._clients = clients
        self._http = http
        self._key = key
        self._user = user
        self._backend = self._token = ""
        # Backend and token of earlier connects: a link that somebody has kept.
        self._earlier: deque[tuple[str, str]] = deque(maxlen=KEPT_LINKS)

    async def run(self) -> None:
        actions = (self._connect, self._read, self._tunnel, self._follow, self._terminate, self._revoke)
        choose = self._clients.random.choices
        while True:
            action = choose(actions, self._clients.weights)[0] if self._backend else self._connect
            await action()
            # A container costs much more than a process to start.
            pause_s = PAUSE_S * (DOCKER_PAUSES if self._key.startswith(DOCKER_KEY) else 1)
            await asyncio.sleep(pause_s * 2 * self._clients.random.random())

    async def _post(self, op: int, controller: Host, path: str, body: Any = None) -> str | None:
        """Call the control API; return the text of the response, or complete the operation and return None."""
        try:
            url = f"http://{controller.ip}:{CONTROLLER_PORT}{path}"
            async with self._http.post(url, json=body) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # What was not sent had no effect.
            is_sent = not isinstance(error, aiohttp.ClientConnectorError)
            self._clients.complete(op, "unknown" if is_sent else "failed", error=type(error).__name__)
            return None
        if response.status != 200:
            outcome = "failed" if response.status < 500 or "NoDroneAvailable" in text else "unknown"
            self._clients.complete(op, outcome, status=response.status, error=text[:160])
            return None
        return text

    async def _connect(self) -> None:
        controller = self._clients.controller()
        op = self._clients.invoke("connect", self._key, controller, user=self._user)
        body = {"key": {"name": self._key}, "user": self._user, "spawn_config": self._clients.spawn_config(self._key)}
        text = await self._post(op, controller, "/ctrl/connect", body)
        if text is None:
            return
        answer = json.loads(text)
        if self._token:
            self._earlier.append((self._backend, self._token))
        self._backend, self._token = answer["backend_id"], answer["token"]
        self._clients.complete(op, "ok", **{name: answer[name] for name in ("backend_id", "spawned", "token", "drone")})

    async def _read(self) -> None:
        proxy, backend, token = self._clients.proxy(), self._backend, self._token
        is_kept = bool(self._earlier) and self._clients.random.random() < KEPT_LINK_SHARE
        if is_kept:
            backend, token = self._clients.random.choice(self._earlier)
        op = self._clients.invoke("read", self._key, proxy, token=token, backend=backend)
        try:
            url = f"http://{proxy.ip}:{PROXY_PORT}/{token}/"
            async with self._http.get(url, headers={"Host": CLUSTER}) as response:
                if response.status == 200:
                    self._clients.complete(op, "ok", **json.loads(await response.text()))
                    return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._clients.complete(op, "failed", error=type(error).__name__)
            return
        self._clients.complete(op, "failed", status=response.status)
        if response.status in (403, 404, 410, 502) and not is_kept:
            await self._connect()

    async def _tunnel(self) -> None:
        proxy, token = self._clients.proxy(), self._token
        op = self._clients.invoke("tunnel", self._key, proxy, token=token, backend=self._backend)
        opened: float | None = None
        last = self._clients.now()
        seen: set[str] = set()
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(proxy.ip, PROXY_PORT)
                head = (
                    f"GET /{token}/tunnel HTTP/1.1\r\nHost: {CLUSTER}\r\nConnection: Upgrade\r\nUpgrade: ticks\r\n\r\n"
                )
                writer.write(head.encode())
                if b" 101 " not in await reader.readuntil(b"\r\n\r\n"):
                    self._clients.complete(op, "failed")
                    return
            opened = self._clients.now()
            async with asyncio.timeout(TUNNEL_S):
                while line := await reader.readline():
                    last = self._clients.now()
                    seen.add(line.decode().strip())
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        outcome = "failed" if opened is None else "ok"
        self._clients.complete(op, outcome, opened=opened, last=last, keys=sorted(seen))

    async def _follow(self) -> None:
        """Read the status stream of the backend for a while."""
        controller, backend = self._clients.controller(), self._backend
        op = self._clients.invoke("follow", self._key, controller, backend=backend)
        statuses: list[str] = []
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            url = f"http://{controller.ip}:{CONTROLLER_PORT}/pub/b/{backend}/status-stream"
            async with self._http.get(url) as response:
                # What was received before an error counts.
                async for line in response.content:
                    statuses += [json.loads(line[6:])["status"]] if line.startswith(b"data: ") else []
        self._clients.complete(op, "ok", statuses=statuses)

    async def _terminate(self) -> None:
        controller, backend = self._clients.controller(), self._backend
        kind = self._clients.random.choice(("soft", "hard"))
        op = self._clients.invoke("terminate", self._key, controller, backend=backend, how=kind)
        if await self._post(op, controller, f"/ctrl/b/{backend}/{kind}-terminate") is not None:
            self._clients.complete(op, "ok")

    async def _revoke(self) -> None:
        controller, backend = self._clients.controller(), self._backend
        op = self._clients.invoke("revoke", self._key, controller, backend=backend, user=self._user)
        if await self._post(op, controller, "/ctrl/revoke", {"backend_id": backend, "user": self._user}) is not None:
            self._clients.complete(op, "ok")
