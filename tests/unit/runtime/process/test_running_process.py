"""A backend that is to end ends, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from plane.runtime.kill_target import ProcessTarget
from plane.runtime.process import running_process
from plane.runtime.process.child_process import ChildProcess
from plane.runtime.process.environments import EnvironmentReader
from plane.runtime.process.running_process import RunningProcess


class Watched(RunningProcess):
    """A backend that notes that it is killed."""

    killed = False

    def kill(self) -> None:
        self.killed = True


class BrokenStop:
    def __init__(self, _: ProcessTarget) -> None:
        return

    def begin(self) -> bool:
        raise KeyError("unexpected")


def backend(kind: type[RunningProcess]) -> Any:
    process = cast("ChildProcess", SimpleNamespace(pid=2**22 + 1, started_at=0))
    return kind("backend", process, 1, False, None, None, "/dev/null", EnvironmentReader())


async def test_backend_is_killed_when_its_soft_stop_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_process, "SoftStop", BrokenStop)
    stopping = backend(Watched)
    stopping.start_stop(grace_s=60.0)
    await asyncio.wait(stopping.tasks, timeout=10)
    assert stopping.killed


async def test_killing_is_tried_again_after_an_unexpected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_process, "KILL_INTERVAL_S", 0.01)
    killed = asyncio.Event()
    attempts = iter((KeyError("unexpected"), OSError("unexpected")))

    def kill_marked(*_: object, **__: object) -> None:
        if (error := next(attempts, None)) is not None:
            raise error
        loop.call_soon_threadsafe(killed.set)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(running_process, "kill_marked", kill_marked)
    ending = backend(RunningProcess)
    ending.kill()
    async with asyncio.timeout(10):
        await killed.wait()
    ending.mark_ended()
    await asyncio.wait(ending.tasks)
