"""Output that nobody reads is bounded, what was dropped is told, and a backend's end disturbs no other's output."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from plane.runtime.logs.collector import LogCollector
from plane.runtime.logs.output_capture import READ_BYTES, OutputCapture, bound, open_for_output
from plane.tasks import end_tasks

LIMIT = 1024 * 1024
LINE = b"0123456789abcde\n"


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def append(path: Path, data: bytes) -> None:
    descriptor = open_for_output(path)
    os.write(descriptor, data)
    os.close(descriptor)


def read_all(spool: OutputCapture) -> list[bytes]:
    lines = []
    while spool.has_more:
        lines += spool.read()
    return lines


def test_a_spool_that_nobody_reads_is_bounded_and_what_is_kept_is_the_end(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    for _ in range(10):
        append(path, LINE * 60_000)
        bound(path, LIMIT)
        assert allocated(path) <= LIMIT
    append(path, b"last\n")
    lines = read_all(OutputCapture(path, 100 * LIMIT))
    assert lines[-1] == b"last"
    assert not any(b"\0" in line for line in lines)
    assert allocated(path) <= READ_BYTES


def test_a_reader_that_was_stopped_says_how_much_it_has_missed(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    append(path, LINE + b"half a li")
    spool = OutputCapture(path, 100 * LIMIT)
    assert spool.read() == [LINE[:-1]]
    append(path, b"ne\n" + LINE * 200_000)
    bound(path, LIMIT)
    size = path.stat().st_size
    # What was read of an unfinished line is given, then what is missing, then the rest.
    half, told, *rest = read_all(spool)
    assert half == b"half a li"
    kept = sum(len(line) + 1 for line in rest)
    assert told == f"[{size - len(LINE) - len(half) - kept} bytes of output came too fast and were dropped]".encode()
    assert LIMIT // 2 <= kept <= LIMIT
    assert set(rest[1:]) == {LINE[:-1]}


def test_a_hole_in_the_middle_is_told_too(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    append(path, LINE)
    spool = OutputCapture(path, 100 * LIMIT)
    # The process may do that: the file is its own.
    os.truncate(path, LIMIT)
    append(path, b"after\n")
    lines = read_all(spool)
    assert lines[0] == LINE[:-1]
    assert lines[-1] == b"after"
    assert b"bytes of output" in lines[-2]


def test_what_is_no_spool_is_left_alone(tmp_path: Path) -> None:
    assert bound(tmp_path / "none", LIMIT) == 0
    precious = tmp_path / "precious"
    precious.write_bytes(LINE * 200_000)
    (tmp_path / "link").symlink_to(precious)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "."):
        assert bound(tmp_path / name, LIMIT) == 0
    # A second name of a file.
    (tmp_path / "name").hardlink_to(precious)
    assert bound(tmp_path / "name", LIMIT) == 0
    assert precious.read_bytes() == LINE * 200_000


def test_what_a_hostile_process_allocates_behind_the_end_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 20 * LIMIT)
        os.truncate(path, 10 * LIMIT)
    bound(path, LIMIT)
    assert allocated(path) <= LIMIT


def test_where_no_holes_can_be_made_it_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plane.runtime.logs.output_capture._punch", lambda descriptor, end: False)
    path = tmp_path / "spool"
    append(path, LINE * 200_000)
    assert bound(path, LIMIT) > LIMIT
    assert path.stat().st_size == 0


async def test_a_backend_may_end_while_the_output_of_another_is_taken(tmp_path: Path) -> None:
    logs = LogCollector(tmp_path)
    for backend in ("a", "b", "c"):
        append(logs.capture_file(backend), LINE)
        logs.follow(backend)
    running = asyncio.create_task(logs.run())
    # It has taken the first one's output, and lets others have their turn.
    await asyncio.sleep(0)
    for backend in ("b", "c"):
        assert logs.finish(backend) == LINE[:-1].decode()
    await asyncio.sleep(0.01)
    assert not running.done()
    append(logs.capture_file("a"), b"more\n")
    async with asyncio.timeout(10):
        while [line.text for line in (await logs.read("a", None, None, 0)).lines] != [LINE[:-1].decode(), "more"]:
            await asyncio.sleep(0.01)
    await end_tasks([running])


async def test_output_that_cannot_be_read_keeps_nobody_from_the_others(tmp_path: Path) -> None:
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
    logs.finish("a")
    await end_tasks([running])
