"""A worker believes in a controller only as long as its proxy says that there is one."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from plane.proxy.processes import worker
from plane.proxy.service import ProxyService
from plane.tasks import end_tasks


class Service:
    def __init__(self) -> None:
        self.told: list[str] = []

    def connected(self) -> None:
        self.told.append("connected")

    def disconnected(self) -> None:
        self.told.append("disconnected")


async def until(service: Service, told: list[str]) -> None:
    async with asyncio.timeout(10):
        while service.told != told:
            await asyncio.sleep(0.01)


async def test_a_proxy_that_is_silent_counts_as_without_a_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SILENCE_LIMIT_S", 0.3)
    service = Service()
    connection = worker._Connection(cast(ProxyService, service))
    watching = asyncio.create_task(connection.watch())
    for _ in range(5):
        connection.received()
        connection.change(connected=True)
        await asyncio.sleep(0.1)
    # It is said again and again, and told once.
    assert service.told[:1] == ["connected"]
    await until(service, ["connected", "disconnected"])
    connection.received()
    connection.change(connected=True)
    assert service.told == ["connected", "disconnected", "connected"]
    connection.change(connected=False)
    assert service.told[3:] == ["disconnected"]
    await end_tasks([watching])
