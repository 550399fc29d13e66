"""The collector moves output from captures to files, and the end or failure of one backend does not affect others."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from plane.runtime.logs import collector
from plane.runtime.logs.collector import LogCollector, LogsUnavailable
from plane.runtime.logs.disk_thread import DiskThread
from plane.runtime.logs.files import LogFiles
from plane.runtime.logs.output_capture import open_for_output
from plane.tasks import end_tasks

LINE = b"0123456789abcde\n"


def append(path: Path, data: bytes) -> None:
    descriptor = open_for_output(path)
    os.write(descriptor, data)
    os.close(descriptor)


async def test_a_read_without_output_raises_the_reason(tmp_path: Path) -> None:
    logs = LogCollector(tmp_path / "backends")
    with pytest.raises(LogsUnavailable, match="never ran here"):
        await logs.read("unknown", None, None, 0)
    os.close(open_for_output(logs.capture_file("known")))
    logs.follow("known")
    page = await logs.read("known", None, 5, 0.01)
    assert (page.lines, page.ended) == ([], False)
    logs.capture_file("known").write_bytes(b"last words")
    assert await logs.finish("known") == "last words"
    page = await logs.read("known", None, None, 0)
    assert ([line.text for line in page.lines], page.ended) == (["last words"], True)
    logs.close()


async def test_a_read_includes_what_was_written_just_before(tmp_path: Path) -> None:
    logs = LogCollector(tmp_path)
    append(logs.capture_file("a"), b"first\n")
    logs.follow("a")
    # Nothing collects: `run` is between two of its reads.
    assert [line.text for line in (await logs.read("a", None, None, 0)).lines] == ["first"]
    append(logs.capture_file("a"), b"second\n")
    assert [line.text for line in (await logs.read("a", None, 1, 0)).lines] == ["second"]
    logs.close()


async def test_reads_that_wait_for_a_disk_that_hangs_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "MAX_WAITING_READS", 3)
    logs = LogCollector(tmp_path)
    append(logs.capture_file("a"), LINE)
    logs.follow("a")
    hangs = threading.Event()
    hanging = asyncio.create_task(logs._disk.run(partial(hangs.wait, 60.0)))
    await asyncio.sleep(0)
    reads = [asyncio.create_task(logs.read("a", None, None, 0)) for _ in range(10)]
    done, waiting = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
    # The thread may not have begun with the operation that hangs, which then counts too.
    assert len(waiting) in (2, 3)
    for refused in done:
        with pytest.raises(LogsUnavailable, match="does not respond"):
            refused.result()
    hangs.set()
    assert [len((await read).lines) for read in waiting] == [1] * len(waiting)
    assert await hanging
    logs.close()


async def test_a_backend_may_end_while_the_output_of_another_is_collected(tmp_path: Path) -> None:
    logs = LogCollector(tmp_path)
    for backend in ("a", "b", "c"):
        append(logs.capture_file(backend), LINE)
        logs.follow(backend)
    running = asyncio.create_task(logs.run())
    # It has collected the output of the first one, and lets other tasks run.
    await asyncio.sleep(0)
    for backend in ("b", "c"):
        assert await logs.finish(backend) == LINE[:-1].decode()
    await asyncio.sleep(0.01)
    assert not running.done()
    append(logs.capture_file("a"), b"more\n")
    async with asyncio.timeout(10):
        while [line.text for line in (await logs.read("a", None, None, 0)).lines] != [LINE[:-1].decode(), "more"]:
            await asyncio.sleep(0.01)
    await end_tasks([running])


async def test_an_unreadable_capture_does_not_stop_the_collection_of_others(tmp_path: Path) -> None:
    logs = LogCollector(tmp_path)
    for backend in ("a", "b"):
        append(logs.capture_file(backend), LINE)
        logs.follow(backend)
    os.close(logs._captures["a"]._descriptor)
    running = asyncio.create_task(logs.run())
    async with asyncio.timeout(10):
        while not (await logs.read("b", None, None, 0)).lines:
            await asyncio.sleep(0.01)
    assert not running.done()
    logs._captures["a"]._descriptor = os.open(os.devnull, os.O_RDWR)
    await logs.finish("a")
    await end_tasks([running])


async def test_nothing_waits_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    responds = threading.Event()
    store = LogFiles.append

    def hang(self: LogFiles, lines: Iterable[bytes], times_ns: Iterable[int] | None = None) -> None:
        assert responds.wait(10)
        store(self, lines, times_ns)

    monkeypatch.setattr(LogFiles, "append", hang)
    logs = LogCollector(tmp_path)
    logs._disk = DiskThread(timeout_s=0.01)
    append(logs.capture_file("a"), LINE)
    logs.follow("a")
    running = asyncio.create_task(logs.run())
    # Leases are renewed meanwhile, and ends are reported.
    for _ in range(10):
        await asyncio.sleep(0.01)
    with pytest.raises(LogsUnavailable, match="does not respond"):
        await logs.read("a", None, None, 0)
    assert await logs.finish("a") == ""
    responds.set()
    async with asyncio.timeout(10):
        while not (page := await logs.read("a", None, None, 0)).ended:
            await asyncio.sleep(0.01)
    assert [line.text for line in page.lines] == [LINE[:-1].decode()]
    await end_tasks([running])
    logs.close()
