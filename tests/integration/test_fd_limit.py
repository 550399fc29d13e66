"""The limits of open files: raised for a drone and a proxy, and not inherited by backends."""

from __future__ import annotations

import asyncio
import resource

import pytest

from plane import fd_limit
from plane.runtime.base import RuntimeListener, SpawnRequest
from plane.runtime.logs.collector import LogCollector
from plane.runtime.process.runtime import ProcessRuntime


async def test_a_backend_does_not_inherit_the_raised_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(fd_limit, "_INHERITED", 256)
    ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    runtime = ProcessRuntime(LogCollector(), bubblewrap=False)
    await runtime.start(RuntimeListener(lambda *exited: ended.set_result(exited[2])))
    try:
        assert fd_limit.raise_fd_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        command = ["/bin/sh", "-c", "ulimit -Sn; ulimit -Hn; exit 9"]
        await runtime.spawn(SpawnRequest("limited", {"command": command}))
        async with asyncio.timeout(20):
            message = await ended
    finally:
        await runtime.close(leave_running=False)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert message is not None
    assert message.split()[-2:] == ["256", str(before[1])]
