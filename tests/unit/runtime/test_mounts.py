"""Folders below a mount base whose file system hangs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plane.runtime import mounts
from plane.runtime.base import BackendFailed
from plane.runtime.file_calls import HANGING_PER_PLACE
from plane.runtime.mounts import Mounts


class Hanging:
    """A file system that does not respond until ``event`` is set."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.opened: list[int] = []
        self._open = mounts._open_folder

    def open(self, base: Path, parts: Sequence[str], owner: int | None) -> int:
        assert self.event.wait(10)
        descriptor = self._open(base, parts, owner)
        self.opened.append(descriptor)
        return descriptor


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Hanging:
    file_system = Hanging()
    monkeypatch.setattr(mounts, "_open_folder", file_system.open)
    return file_system


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


async def test_only_the_start_waits_for_a_file_system_that_hangs(hanging: Hanging, tmp_path: Path) -> None:
    opening = asyncio.create_task(Mounts(tmp_path).open("a", None))
    # Leases are renewed meanwhile.
    for _ in range(10):
        await asyncio.sleep(0.01)
    assert not opening.done()
    hanging.event.set()
    descriptor = await opening
    assert descriptor is not None
    assert os.path.samestat(os.fstat(descriptor), (tmp_path / "a").stat())
    os.close(descriptor)


async def test_a_start_fails_when_the_file_system_hangs_and_leaves_nothing_open(
    hanging: Hanging, tmp_path: Path
) -> None:
    subject = Mounts(tmp_path, timeout_s=0.01)
    for number in range(HANGING_PER_PLACE):
        with pytest.raises(BackendFailed, match="has not responded within"):
            await subject.open(f"f{number}", None)
    # Threads that hang are few.
    with pytest.raises(BackendFailed, match="does not respond"):
        await subject.open("another", None)
    hanging.event.set()
    async with asyncio.timeout(10):
        while len(hanging.opened) < HANGING_PER_PLACE or any(map(is_open, hanging.opened)):
            await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        descriptor = await Mounts(tmp_path).open("another", None)
    assert descriptor is not None
    os.close(descriptor)


async def test_a_start_fails_when_the_file_system_hangs_after_the_container_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, stat = threading.Event(), os.stat

    def hanging(path: Any, **options: Any) -> os.stat_result:
        assert not str(path).startswith("/proc/") or event.wait(10)
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", hanging)
    with pytest.raises(BackendFailed, match="has not responded within"):
        await Mounts(tmp_path, timeout_s=0.1).check(os.getpid(), -1)
    event.set()


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_container_whose_folder_was_replaced_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    opened, other = tmp_path / "opened", tmp_path / "other"
    opened.mkdir()
    other.mkdir()
    shown, stat = (other if is_replaced else opened), os.stat

    def mounted(path: Any, **options: Any) -> os.stat_result:
        return stat(shown if str(path).startswith("/proc/1/") else path, **options)

    monkeypatch.setattr(os, "stat", mounted)
    subject, folder = Mounts(tmp_path), os.open(opened, os.O_PATH)
    try:
        if is_replaced:
            with pytest.raises(BackendFailed, match="was replaced"):
                await subject.check(1, folder)
        else:
            await subject.check(1, folder)
    finally:
        os.close(folder)


async def test_a_cancelled_start_leaves_nothing_open(hanging: Hanging, tmp_path: Path) -> None:
    opening = asyncio.create_task(Mounts(tmp_path).open("a", None))
    await asyncio.sleep(0.01)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    hanging.event.set()
    async with asyncio.timeout(10):
        while not hanging.opened or is_open(hanging.opened[0]):
            await asyncio.sleep(0.01)
