"""The real program with workers, and one process that takes over from another."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from harness import real_parts
from harness.certificates import Authority
from harness.program import Program
from harness.proxy_world import CLUSTER, LIMIT_S, World, get, program_world, status
from plane.protocol.names import ClusterName, NodeName
from plane.proxy.listeners.entry_points import EntryPoints, bind
from plane.proxy.processes.workers import Workers
from plane.settings import ProxySettings
from plane.tasks import end_tasks
from plane.transport.controller_url import ControllerUrl

CLOSE = "Connection: close"


def workers_of(running: Program) -> list[int]:
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    return [int(pid) for pid in children]


async def until_ended(pid: int) -> None:
    async with asyncio.timeout(30):
        while not real_parts.has_ended(pid):
            await asyncio.sleep(0.05)


async def test_workers_are_one_proxy_to_the_controller(tmp_path: Path) -> None:
    async with program_world(tmp_path, "--workers", "2") as (it, running):
        assert len(workers_of(running)) == 2
        responses = await asyncio.gather(*(it.send(get("/t/", CLOSE)) for _ in range(40)))
        assert {status(response) for response in responses} == {200}
        # One connection, one lookup at a time for all workers, and at most one keepalive per second.
        assert it.sockets == 1
        # The lookup of the second worker may cross with the response to the first.
        assert it.asked in (["t"], ["t", "t"])
        async with asyncio.timeout(LIMIT_S):
            while not it.kept_alive:
                await asyncio.sleep(0.05)
        assert len(it.kept_alive) <= 4
        # A lookup of one worker alone is resolved too.
        assert status(await it.send(get("/unknown/", CLOSE))) == 410


async def test_a_worker_that_dies_is_replaced_while_the_other_serves(tmp_path: Path) -> None:
    async with program_world(tmp_path, "--workers", "2") as (it, running):
        victim, other = workers_of(running)
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(running.says, "worker ended; starting another")
        async with asyncio.timeout(30):
            # Clients whose connection waits for the replacement get their response from it.
            responses = await asyncio.gather(*(patient(it) for _ in range(20)))
        assert {status(response) for response in responses} == {200}
        assert other in workers_of(running)
        assert victim not in workers_of(running)


async def test_a_worker_that_is_stopped_is_replaced(tmp_path: Path) -> None:
    async with program_world(tmp_path, "--workers", "2") as (it, running):
        stopped, other = workers_of(running)
        os.kill(stopped, signal.SIGSTOP)
        await asyncio.to_thread(running.says, "worker is stuck; killing it")
        await until_ended(stopped)
        async with asyncio.timeout(30):
            responses = await asyncio.gather(*(patient(it) for _ in range(20)))
        assert {status(response) for response in responses} == {200}
        assert other in workers_of(running)


async def test_a_worker_that_cannot_start_is_started_again_after_growing_waits(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def say(_: object) -> bool:
        return True

    settings = ProxySettings(
        controller_url=ControllerUrl.parse("http://127.0.0.1:1"),
        cluster=ClusterName(CLUSTER),
        name=NodeName("px-test"),
        host="127.0.0.1",
        http_port=0,
    )
    entrances = EntryPoints(bind("127.0.0.1", 0, "--http-port"))
    running = asyncio.create_task(Workers(settings, ["false"], entrances, say).run())
    said = ""
    try:
        async with asyncio.timeout(30):
            while said.count("worker ended") < 3:
                await asyncio.sleep(0.05)
                assert not running.done()
                said += "".join(capfd.readouterr())
    finally:
        await end_tasks([running])
        entrances.close()
    assert re.findall(r"after_s=(\S+)", re.sub(r"\x1b\[\d*m", "", said))[:3] == ["1.0", "1.1", "1.2"]


async def patient(it: World) -> bytes:
    """Send like `World.send`, and wait for the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    writer.write(get("/t/", CLOSE))
    response = await reader.read(-1)
    writer.close()
    return response


async def test_workers_end_with_their_proxy(tmp_path: Path) -> None:
    async with program_world(tmp_path, "--workers", "2") as (_, running):
        workers = workers_of(running)
        running.process.kill()
        for pid in workers:
            await until_ended(pid)
        assert all(real_parts.has_ended(pid) for pid in workers)


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "workers"])
async def test_a_new_process_takes_over_without_a_refused_connection(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with program_world(tmp_path, *options) as (it, running):
        successor = await asyncio.to_thread(_take_over_while_asked, it, running, asyncio.get_running_loop())
        try:
            assert running.process.wait(30) == 0
            # The new one has the controller for itself.
            async with asyncio.timeout(LIMIT_S):
                await it.until_ready()
            assert status(await patient(it)) == 200
            assert it.sockets == 2
        finally:
            os.kill(successor, signal.SIGTERM)
            await until_ended(successor)


def _take_over_while_asked(it: World, running: Program, loop: asyncio.AbstractEventLoop) -> int:
    """A new process takes over while requests come all the time, each of which must get a response."""

    async def ask_until(stop: asyncio.Event) -> int:
        count = 0
        while not stop.is_set():
            assert status(await patient(it)) == 200
            count += 1
        return count

    async def begin() -> tuple[asyncio.Event, list[asyncio.Task[int]]]:
        stop = asyncio.Event()
        return stop, [asyncio.create_task(ask_until(stop)) for _ in range(4)]

    async def end(stop: asyncio.Event, asking: list[asyncio.Task[int]]) -> int:
        stop.set()
        async with asyncio.timeout(30):
            return sum(await asyncio.gather(*asking))

    stop, asking = asyncio.run_coroutine_threadsafe(begin(), loop).result()
    running.process.send_signal(signal.SIGUSR2)
    running.says("new process has taken over")
    running.says("proxy stops")
    running.process.wait(30)
    successor = int(
        next(line for line in running.log.read_text().splitlines() if "has taken over" in line).rpartition("pid=")[2]
    )
    answered = asyncio.run_coroutine_threadsafe(end(stop, asking), loop).result()
    assert answered > 10
    return successor


async def test_a_new_process_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.pair(authority.issue())
    options = ("--https", "--https-port", "0", "--tls-cert", str(chain), "--tls-key", str(key))
    async with program_world(tmp_path, *options) as (it, running):
        chain.unlink()
        running.process.send_signal(signal.SIGUSR2)
        await asyncio.to_thread(running.says, "new process did not take over")
        response = await it.send(get("/t/a", CLOSE, host=CLUSTER))
        assert status(response) == 301
        assert it.sockets == 1
