"""An executable is resolved on this machine once per start."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from plane.runtime.base import BackendFailed
from plane.runtime.file_calls import FileCalls
from plane.runtime.logs.collector import LogCollector
from plane.runtime.process import start
from plane.runtime.process.environments import EnvironmentReader
from plane.runtime.process.start import ProcessStarter


@pytest.fixture
def starter(tmp_path: Path) -> ProcessStarter:
    return ProcessStarter(
        LogCollector(tmp_path),
        bubblewrap=False,
        cgroups=None,
        identity="test/dr-test",
        environments=EnvironmentReader(),
        mount_base=None,
        exposed=(),
        hidden=(),
        user=None,
        ip=None,
    )


async def test_a_command_is_resolved_to_a_path(starter: ProcessStarter) -> None:
    resolved = await starter.resolve({"command": ["sh", "-c", "true"]})
    assert resolved.command == [shutil.which("sh"), "-c", "true"]
    assert (resolved.user, resolved.view) == (None, None)


async def test_a_resolved_executable_is_not_resolved_again(starter: ProcessStarter) -> None:
    resolved = await starter.resolve({"command": ["sh"]})
    assert await starter.resolve(resolved) is resolved


@pytest.mark.parametrize(
    ("executable", "message"),
    [
        ({"command": ["no-such-program"]}, "'no-such-program' does not exist on the drone's machine"),
        ({"command": ["sh"], "cwd": "/no/such/folder"}, "'/no/such/folder' is not a folder"),
        ({"command": ["sh"], "isolation": "bubblewrap"}, "executable.isolation"),
        ({"command": ["sh"], "resource_limits": {"cpu_period_percent": 50}}, "executable.resource_limits"),
    ],
)
async def test_an_executable_that_cannot_be_started_is_refused(
    starter: ProcessStarter, executable: object, message: str
) -> None:
    with pytest.raises(BackendFailed, match=message):
        await starter.resolve(executable)


async def test_only_the_start_waits_for_a_file_system_that_hangs(
    starter: ProcessStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(start, "resolve_command", lambda *_: hangs.wait(10))
    monkeypatch.setattr(starter, "_file_calls", FileCalls(timeout_s=0.2))
    resolving = asyncio.create_task(starter.resolve({"command": ["sh"], "cwd": "/network"}))
    for _ in range(10):
        await asyncio.sleep(0.01)
    assert not resolving.done()
    with pytest.raises(BackendFailed, match=r"executable\.cwd.* has not responded within 0\.2 s"):
        await resolving
    hangs.set()


async def test_the_exit_of_a_backend_is_described_although_an_exposed_folder_hangs(
    starter: ProcessStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(start, "view_of", lambda *_: hangs.wait(10))
    monkeypatch.setattr(starter, "_file_calls", FileCalls(timeout_s=0.01))
    assert await starter.masked_folders() == ()
    hangs.set()
