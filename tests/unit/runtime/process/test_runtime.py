"""What a process runtime does when a start fails."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from plane.runtime.base import BackendFailed, SpawnRequest
from plane.runtime.logs.collector import LogCollector
from plane.runtime.process import runtime as process_runtime
from plane.runtime.process.runtime import ProcessRuntime
from plane.runtime.process.start import ProcessStarter


async def test_nothing_else_waits_for_the_home_of_a_start_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_remove, removed = threading.Event(), threading.Event()

    def remove(folder: Path) -> None:
        assert may_remove.wait(10)
        removed.set()

    async def fail(*_: object) -> None:
        raise BackendFailed("it cannot be started")

    monkeypatch.setattr(process_runtime, "remove_home", remove)
    monkeypatch.setattr(ProcessStarter, "start", fail)
    subject = ProcessRuntime(LogCollector(tmp_path), bubblewrap=False)
    await subject.start(Mock())
    spawning = asyncio.create_task(subject.spawn(SpawnRequest("b", {"command": ["sh"]})))
    # Leases are renewed meanwhile.
    for _ in range(10):
        await asyncio.sleep(0.01)
    assert not spawning.done()
    may_remove.set()
    with pytest.raises(BackendFailed, match="it cannot be started"):
        await spawning
    assert removed.is_set()
    await subject.close(leave_running=False)
