"""Nodes of the tests' own: they send and receive plain JSON of the protocol, without any code of Plane."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp

__all__ = ["CLUSTER", "FakeNode", "fake_dns", "fake_drone", "fake_proxy", "obedient_drone", "silent_drone"]

CLUSTER = "rec.example:9090"
LIMIT_S = 10.0
VERSION = {"version": "0.5.5", "git_hash": "87daf256"}


class FakeNode:
    """One end of a node socket. Messages are dicts with one member: the variant."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, controller: dict[str, Any]) -> None:
        self.ws = ws
        self.controller = controller
        self._unread: list[dict[str, Any]] = []

    async def send(self, variant: str, content: Any) -> None:
        await self.ws.send_str(json.dumps({variant: content}))

    async def receive(self, variant: str) -> Any:
        """Return the content of the next message of that variant; others are kept for later."""
        for message in self._unread:
            if variant in message:
                self._unread.remove(message)
                return message[variant]
        async with asyncio.timeout(LIMIT_S):
            while True:
                message = json.loads(await self.ws.receive_str())
                if variant in message:
                    return message[variant]
                self._unread.append(message)

    def has_received(self, variant: str) -> bool:
        """Whether a message of that variant came before the last one that was received."""
        return any(variant in message for message in self._unread)

    async def beat(self, local_time_ms: int | None = None) -> None:
        await self.send("Heartbeat", {"local_time": local_time_ms or int(time.time() * 1000)})


@asynccontextmanager
async def _node(
    base: str,
    path: str,
    name: str,
    extensions: list[str] | None = None,
    identity: dict[str, str] | None = None,
) -> AsyncIterator[FakeNode]:
    handshake: dict[str, Any] = {"version": VERSION, "name": name}
    if extensions is not None:
        handshake["extensions"] = extensions
    if identity is not None:
        handshake["identity"] = identity
    async with aiohttp.ClientSession() as http, http.ws_connect(base + path) as ws:
        await ws.send_str(json.dumps(handshake))
        async with asyncio.timeout(LIMIT_S):
            controller = json.loads(await ws.receive_str())
        yield FakeNode(ws, controller)
        await ws.close(code=aiohttp.WSCloseCode.GOING_AWAY)


@asynccontextmanager
async def silent_drone(
    base: str,
    name: str = "dr-fake",
    *,
    cluster: str = CLUSTER,
    pool: str = "",
    extensions: list[str] | None = None,
    identity: dict[str, str] | None = None,
) -> AsyncIterator[FakeNode]:
    """A drone that has sent nothing after its handshake. It may not be registered yet."""
    query = f"?pool={quote(pool)}" if pool else ""
    async with _node(base, f"/ctrl/c/{cluster}/drone-socket{query}", name, extensions, identity) as node:
        yield node


@asynccontextmanager
async def fake_drone(
    base: str,
    name: str = "dr-fake",
    *,
    cluster: str = CLUSTER,
    pool: str = "",
    local_time_ms: int | None = None,
    extensions: list[str] | None = None,
    identity: dict[str, str] | None = None,
) -> AsyncIterator[FakeNode]:
    """A drone that has sent its first heartbeat, and does nothing else by itself."""
    async with silent_drone(base, name, cluster=cluster, pool=pool, extensions=extensions, identity=identity) as node:
        # A response comes once it is registered; before that its former registration may still be listed.
        await node.send("RenewKey", {"backend": "none", "local_time": 1})
        await node.receive("RenewKeyResponse")
        await node.beat(local_time_ms)
        await _until_heard(base, cluster, name)
        yield node


async def _until_heard(base: str, cluster: str, name: str) -> None:
    """Return once the drone's heartbeat is stored, so that it may be given work."""
    async with asyncio.timeout(LIMIT_S), aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{base}/ctrl/c/{cluster}/state") as answer:
                state = await answer.json()
            if any(drone["node"]["name"] == {"Drone": name} for drone in state["drones"]):
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def fake_proxy(
    base: str, name: str = "px-fake", *, cluster: str = CLUSTER, extensions: list[str] | None = None
) -> AsyncIterator[FakeNode]:
    async with _node(base, f"/ctrl/c/{cluster}/proxy-socket", name, extensions) as node:
        yield node


@asynccontextmanager
async def fake_dns(base: str, name: str = "ns-fake") -> AsyncIterator[FakeNode]:
    async with _node(base, "/ctrl/dns-socket", name) as node:
        yield node


@asynccontextmanager
async def obedient_drone(base: str, name: str = "dr-fake", **kwargs: Any) -> AsyncIterator[list[str]]:
    """A drone that beats, renews nothing, and does what it is told at once. Yields the ids of what it spawned."""
    async with fake_drone(base, name, **kwargs) as node:
        spawned: list[str] = []
        task = asyncio.create_task(_obey(node, spawned))
        try:
            yield spawned
        finally:
            task.cancel()
            await asyncio.wait([task])


async def _obey(node: FakeNode, spawned: list[str]) -> None:
    ready = {"status": "ready", "address": "127.0.0.1:1"}
    rising: list[dict[str, Any]] = [
        {"status": "loading"},
        {"status": "starting"},
        {"status": "waiting", "address": "127.0.0.1:1"},
        ready,
    ]
    event_id = 0
    while True:
        action = await _next_action(node)
        order, backend = action["action"], action["backend_id"]
        if "Spawn" in order:
            if backend in spawned:
                continue
            spawned.append(backend)
            states = rising
        else:
            terminate = order["Terminate"]
            states = [
                {
                    "status": "terminated",
                    "last_status": "ready",
                    "termination": terminate["kind"],
                    "reason": terminate["reason"],
                    "exit_code": 0,
                }
            ]
        for state in states:
            event_id += 1
            await node.send(
                "BackendEvent",
                {
                    "event_id": event_id,
                    "backend_id": backend,
                    "state": state,
                    "timestamp": int(time.time() * 1000),
                },
            )
        await node.send("AckAction", {"action_id": action["action_id"]})


async def _next_action(node: FakeNode) -> dict[str, Any]:
    """The next action, beating meanwhile."""
    while True:
        try:
            async with asyncio.timeout(4):
                action: dict[str, Any] = await node.receive("Action")
                return action
        except TimeoutError:
            await node.beat()
