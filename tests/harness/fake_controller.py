"""A controller of the tests' own, for real drones: it sends and receives plain JSON of the protocol, and gives leases
that are as short as a test wants. Runs on a thread, so that tests can start and stop programs meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import WSMsgType, web

from harness.clusters import until
from harness.fake_node import VERSION
from plane.protocol.names import Prefix
from plane.random_ids import random_name

__all__ = ["FakeController", "fake_controller"]


class FakeController:
    """Acknowledges what it is told, and renews keys.

    Args:
        lease_s: from a renewal to when the next one, the soft and the hard end are due.
    """

    def __init__(self, lease_s: tuple[float, float, float]) -> None:
        self.url = ""
        # By backend: what the drone told, in order, and the hard deadline that it has last been given.
        self.told: dict[str, list[dict[str, Any]]] = {}
        self.hard_deadlines: dict[str, int] = {}
        self.sessions = 0
        # How each drone that connected called itself.
        self.names: list[str] = []
        self._lease_s = lease_s
        # The time that the drone reported last.
        self.local_time = 0
        self._drone: web.WebSocketResponse | None = None
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()

    def state(self, backend: str) -> dict[str, Any]:
        """The last state that was told of; empty if none was."""
        return self.told.get(backend, [{}])[-1]

    def spawn(self, backend: str, executable: Any) -> None:
        """Order a backend, and return once it is ready."""
        self.order(executable, backend)
        until(lambda: self.state(backend).get("status") == "ready")

    def order(self, executable: Any, backend: str = "", *, shift_s: float = 0.0) -> str:
        """Order a backend whose lease began at the last heartbeat, or ``shift_s`` later; returns its id."""
        backend = backend or random_name(Prefix.BACKEND)
        deadlines = self._deadlines(backend, self.local_time + round(1000 * shift_s))
        key = {"key": {"name": backend, "namespace": "", "tag": ""}, "deadlines": deadlines, "token": 1}
        order = {"Spawn": {"executable": executable, "key": key, "static_token": None}}
        self._act(backend, order)
        return backend

    def terminate(self, backend: str) -> None:
        """Order a backend's end."""
        self._act(backend, {"Terminate": {"kind": "hard", "reason": "external"}})

    def _act(self, backend: str, order: dict[str, Any]) -> None:
        number = next(self._numbers)
        action = {"action_id": f"ak-{number}", "backend_id": backend, "drone_id": 1, "action": order}
        asyncio.run_coroutine_threadsafe(self._say("Action", action), self._loop).result(10)

    def _deadlines(self, backend: str, start_ms: int) -> dict[str, int]:
        renew, soft, hard = (start_ms + round(1000 * seconds) for seconds in self._lease_s)
        self.hard_deadlines[backend] = hard
        return {"renew_at": renew, "soft_terminate_at": soft, "hard_terminate_at": hard}

    async def _say(self, variant: str, content: Any) -> None:
        assert self._drone is not None
        await self._drone.send_str(json.dumps({variant: content}))

    async def _serve_drone(self, request: web.Request) -> web.WebSocketResponse:
        drone = web.WebSocketResponse()
        await drone.prepare(request)
        self.names.append(json.loads(await drone.receive_str())["name"])
        await drone.send_str(json.dumps({"version": VERSION, "name": "co-fake"}))
        self._drone = drone
        async for message in drone:
            if message.type is WSMsgType.TEXT:
                await self._hear(json.loads(message.data))
        return drone

    async def _hear(self, message: dict[str, Any]) -> None:
        match message:
            case {"Heartbeat": {"local_time": local_time}}:
                if self.local_time != local_time:
                    self.local_time = local_time
                    self.sessions += 1
            case {"BackendEvent": {"event_id": number, "backend_id": backend, "state": state}}:
                self.told.setdefault(backend, []).append(state)
                await self._say("AckEvent", {"event_id": number})
            case {"RenewKey": {"backend": backend, "local_time": local_time}}:
                deadlines = self._deadlines(backend, local_time)
                await self._say("RenewKeyResponse", {"backend": backend, "deadlines": deadlines})

    def run(self, started: threading.Event) -> None:
        """Serve until `stop`, on a thread."""
        self._loop.run_until_complete(self._start(started))
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _start(self, started: threading.Event) -> None:
        app = web.Application()
        app.router.add_get("/ctrl/c/{cluster}/drone-socket", self._serve_drone)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        started.set()

    def stop(self) -> None:
        """End `run`."""
        self._loop.call_soon_threadsafe(self._loop.stop)


@contextmanager
def fake_controller(*, renew_s: float, soft_s: float, hard_s: float) -> Iterator[FakeController]:
    """A controller that gives such leases."""
    controller, started = FakeController((renew_s, soft_s, hard_s)), threading.Event()
    thread = threading.Thread(target=controller.run, args=(started,))
    thread.start()
    try:
        assert started.wait(10)
        yield controller
    finally:
        controller.stop()
        thread.join(10)
