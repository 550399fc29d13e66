"""Drones in one process that respond at once and do nothing else, by the protocol of node sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp

__all__ = ["BenchDrone", "connected_drones"]

_ADDRESS = "127.0.0.1:1"
_RISING: tuple[dict[str, Any], ...] = (
    {"status": "loading"},
    {"status": "starting"},
    {"status": "waiting", "address": _ADDRESS},
    {"status": "ready", "address": _ADDRESS},
)


class BenchDrone:
    """One connection. ``stored`` knows each backend whose last state the controller has acknowledged."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self._event_id = 0
        self._last_event: dict[int, str] = {}
        self.stored: dict[str, asyncio.Event] = {}

    async def report(self, backend: str, *states: dict[str, Any]) -> None:
        """Say that a backend has entered these states."""
        for state in states:
            self._event_id += 1
            content = {"event_id": self._event_id, "backend_id": backend, "state": state, "timestamp": 1}
            await self._ws.send_str(json.dumps({"BackendEvent": content}))
        self._last_event[self._event_id] = backend

    async def serve(self) -> None:
        """Obey until the connection ends."""
        async for frame in self._ws:
            message = json.loads(frame.data)
            if "AckEvent" in message:
                backend = self._last_event.pop(message["AckEvent"]["event_id"], None)
                if backend is not None:
                    self.stored.setdefault(backend, asyncio.Event()).set()
            elif "Action" in message:
                action = message["Action"]
                await self.report(action["backend_id"], *_RISING)
                await self._ws.send_str(json.dumps({"AckAction": {"action_id": action["action_id"]}}))

    async def beat(self) -> None:
        """One heartbeat."""
        await self._ws.send_str(json.dumps({"Heartbeat": {"local_time": int(time.time() * 1000)}}))

    async def beat_for_ever(self) -> None:
        """A heartbeat every five seconds."""
        while True:
            await self.beat()
            await asyncio.sleep(5)

    async def renew_for_ever(self, backends: Sequence[str]) -> None:
        """Renew each backend's key every 30 s, spread evenly."""
        while True:
            for backend in backends:
                renewal = {"backend": backend, "local_time": int(time.time() * 1000)}
                await self._ws.send_str(json.dumps({"RenewKey": renewal}))
                await asyncio.sleep(30 / len(backends))

    @staticmethod
    async def until_stored(drones: Sequence[BenchDrone], backend: str) -> None:
        """Return once the last state that any of the drones reported of the backend is acknowledged."""
        waits = [asyncio.create_task(drone.stored.setdefault(backend, asyncio.Event()).wait()) for drone in drones]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


@asynccontextmanager
async def connected_drones(base: str, cluster: str, count: int, first: int = 0) -> AsyncIterator[list[BenchDrone]]:
    """So many drones, each with its heartbeats."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        drones = []
        tasks = []
        for number in range(first, first + count):
            ws = await stack.enter_async_context(http.ws_connect(f"{base}/ctrl/c/{cluster}/drone-socket"))
            await ws.send_str(json.dumps({"version": {"version": "0.5.5", "git_hash": ""}, "name": f"dr-{number}"}))
            await ws.receive_str()
            drone = BenchDrone(ws)
            drones.append(drone)
            tasks += [asyncio.create_task(drone.serve()), asyncio.create_task(drone.beat_for_ever())]
        await asyncio.sleep(0.5)
        try:
            yield drones
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
