"""Controllers for integration tests: the real one, in the test's own process, on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from harness.fake_node import CLUSTER
from plane.controller.server import start_controller
from plane.protocol.names import ClusterName, ControllerName, Prefix
from plane.random_ids import random_name
from plane.settings import ControllerSettings
from plane.timing import FAILOVER_OBJECTION_S

__all__ = ["Api", "controller_api"]


class Api:
    """A controller's HTTP API, as its users call it."""

    def __init__(self, http: aiohttp.ClientSession, base: str) -> None:
        self.http = http
        self.base = base

    async def call(self, method: str, path: str, body: Any = None, **kwargs: Any) -> tuple[int, Any]:
        """Status and decoded body."""
        if body is not None:
            kwargs["json"] = body
        async with self.http.request(method, self.base + path, **kwargs) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.text()

    async def connect(self, **request: Any) -> dict[str, Any]:
        """A connect request that must succeed."""
        status, body = await self.call("POST", "/ctrl/connect", request)
        assert status == 200, body
        answer: dict[str, Any] = body
        return answer

    async def connect_once_granted(self, **request: Any) -> dict[str, Any]:
        """A connect request that must succeed, though a restart of the database may hold it up for some seconds."""
        async with asyncio.timeout(FAILOVER_OBJECTION_S + 10):
            while True:
                status, body = await self.call("POST", "/ctrl/connect", request)
                if status != 503:
                    assert status == 200, body
                    answer: dict[str, Any] = body
                    return answer
                await asyncio.sleep(0.1)

    async def refused(self, **request: Any) -> tuple[int, str]:
        """A connect request that must fail: status and kind."""
        status, body = await self.call("POST", "/ctrl/connect", request)
        assert status != 200, body
        return status, body["kind"]


@asynccontextmanager
async def controller_api(db: str, **settings: Any) -> AsyncIterator[Api]:
    """A running controller with a default cluster, on any free port."""
    values: dict[str, Any] = {
        "db": db,
        "name": ControllerName(random_name(Prefix.CONTROLLER)),
        "port": 0,
        "default_cluster": ClusterName(CLUSTER),
        **settings,
    }
    async with (
        start_controller(ControllerSettings(**values)) as controller,
        aiohttp.ClientSession() as http,
    ):
        yield Api(http, f"http://127.0.0.1:{controller.port}")
