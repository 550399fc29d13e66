"""A worker is connected to a controller only as long as its proxy reports that."""

from __future__ import annotations

import asyncio
from typing import cast

from plane.proxy.processes.worker import ProxyConnection
from plane.proxy.service import ProxyService
from plane.tasks import end_tasks


class Service:
    def __init__(self) -> None:
        self.received: list[str] = []

    def connected(self) -> None:
        self.received.append("connected")

    def disconnected(self) -> None:
        self.received.append("disconnected")


async def until(service: Service, received: list[str]) -> None:
    async with asyncio.timeout(10):
        while service.received != received:
            await asyncio.sleep(0.01)


async def test_a_silent_proxy_counts_as_disconnected() -> None:
    service = Service()
    connection = ProxyConnection(cast(ProxyService, service), silence_timeout_s=0.3)
    watching = asyncio.create_task(connection.watch())
    for _ in range(5):
        connection.received()
        connection.change(connected=True)
        await asyncio.sleep(0.1)
    # The proxy repeats its report; only the change reaches the service.
    assert service.received[:1] == ["connected"]
    await until(service, ["connected", "disconnected"])
    connection.received()
    connection.change(connected=True)
    assert service.received == ["connected", "disconnected", "connected"]
    connection.change(connected=False)
    assert service.received[3:] == ["disconnected"]
    await end_tasks([watching])
