"""Leases are renewed when due, and backends without a renewal are terminated at their deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness.enforcers import FakeEnforcer
from plane.drone.clock import DroneClock
from plane.drone.lease_renewer import LeaseRenewer
from plane.protocol.backend_state import TerminationKind
from plane.protocol.drone_messages import RenewKey, RenewKeyResponse
from plane.protocol.keys import KeyDeadlines
from plane.tasks import end_tasks


class Renewer:
    """A renewer whose renewals and terminations are recorded."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.clock = DroneClock(
            boot_id="boot", time_of_day_ns=lambda: 10**18, since_boot_ns=lambda: round(self.now_s * 1e9)
        )
        self.enforcer = FakeEnforcer()
        self.sent: asyncio.Queue[RenewKey] = asyncio.Queue()
        self.terminated: asyncio.Queue[tuple[str, TerminationKind]] = asyncio.Queue()
        self.extended: list[tuple[str, int]] = []
        self.leases = LeaseRenewer(
            self.clock,
            lambda backend, kind: self.terminated.put_nowait((backend, kind)),
            self.enforcer,
            lambda backend, at: self.extended.append((backend, at)),
        )

    def deadlines(self, renew_s: float, soft_s: float, hard_s: float) -> KeyDeadlines:
        now = self.clock.now()
        return KeyDeadlines(now.plus_s(renew_s), now.plus_s(soft_s), now.plus_s(hard_s))


@asynccontextmanager
async def renewer() -> AsyncIterator[Renewer]:
    it = Renewer()
    running = asyncio.create_task(it.leases.run())
    try:
        async with asyncio.timeout(10):
            yield it
    finally:
        await end_tasks([running])


async def test_a_renewal_extends_the_deadlines_everywhere() -> None:
    async with renewer() as it:
        it.leases.on_connected(it.sent.put_nowait)
        it.leases.add("b", it.deadlines(0, 3600, 3600))
        assert (await it.sent.get()).backend == "b"
        renewed = it.deadlines(30, 40, 50)
        it.leases.on_response(RenewKeyResponse("b", renewed))
        hard_ns = it.clock.since_boot_ns(renewed.hard_terminate_at)
        assert it.extended == [("b", hard_ns)]
        assert it.enforcer.hard_deadlines == {"b": hard_ns}
        assert it.leases.hard_deadline_ns("b") == hard_ns
        assert it.leases.take_renewed() == {"b": renewed}
        assert it.leases.take_renewed() == {}
        it.leases.remove("b")
        assert it.leases.hard_deadline_ns("b") is None
        assert it.enforcer.released == ["b"]


async def test_a_due_renewal_is_sent_once_a_controller_is_connected() -> None:
    async with renewer() as it:
        it.leases.add("b", it.deadlines(0, 3600, 3600))
        await asyncio.sleep(0.01)
        it.leases.on_connected(it.sent.put_nowait)
        assert (await it.sent.get()).backend == "b"
        # The response may have been lost with the connection.
        it.leases.on_disconnected()
        it.leases.on_connected(it.sent.put_nowait)
        assert (await it.sent.get()).backend == "b"


async def test_a_backend_without_renewal_is_stopped_and_then_killed() -> None:
    async with renewer() as it:
        it.leases.add("b", it.deadlines(30, 40, 50))
        it.now_s += 40
        it.leases.on_connected(it.sent.put_nowait)
        assert await it.terminated.get() == ("b", TerminationKind.SOFT)
        it.now_s += 10
        it.leases.on_connected(it.sent.put_nowait)
        assert await it.terminated.get() == ("b", TerminationKind.HARD)
        assert it.sent.empty()


async def test_a_refused_renewal_ends_the_wait_for_it() -> None:
    async with renewer() as it:
        it.leases.on_connected(it.sent.put_nowait)
        it.leases.add("b", it.deadlines(3600, 3600, 3600))
        waiting = asyncio.create_task(it.leases.wait_renewed("b"))
        assert (await it.sent.get()).backend == "b"
        it.leases.on_response(RenewKeyResponse("b", None))
        assert await waiting is False


async def test_a_renewal_ends_the_wait_for_it() -> None:
    async with renewer() as it:
        it.leases.on_connected(it.sent.put_nowait)
        it.leases.add("b", it.deadlines(3600, 3600, 3600))
        waiting = asyncio.create_task(it.leases.wait_renewed("b"))
        await it.sent.get()
        it.leases.on_response(RenewKeyResponse("b", it.deadlines(30, 40, 50)))
        assert await waiting is True


async def test_one_lease_of_many_is_due_at_its_own_time() -> None:
    async with renewer() as it:
        it.leases.on_connected(it.sent.put_nowait)
        for number in range(20):
            it.leases.add(f"b{number}", it.deadlines(30 + number, 3600, 3600))
        it.leases.remove("b1")
        it.now_s += 32
        # A response about another backend wakes the renewer.
        it.leases.on_response(RenewKeyResponse("b19", it.deadlines(30, 40, 50)))
        assert {(await it.sent.get()).backend, (await it.sent.get()).backend} == {"b0", "b2"}
        assert it.sent.empty()
