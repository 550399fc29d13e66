"""An executable is resolved on this machine once per start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from plane.runtime.base import BackendFailed
from plane.runtime.logs.collector import LogCollector
from plane.runtime.process.start import ProcessStarter


@pytest.fixture
def starter(tmp_path: Path) -> ProcessStarter:
    return ProcessStarter(
        LogCollector(tmp_path),
        bubblewrap=False,
        cgroups=None,
        identity="test/dr-test",
        mount_base=None,
        exposed=(),
        hidden=(),
        user=None,
        ip=None,
    )


def test_a_command_is_resolved_to_a_path(starter: ProcessStarter) -> None:
    resolved = starter.resolve({"command": ["sh", "-c", "true"]})
    assert resolved.command == [shutil.which("sh"), "-c", "true"]
    assert (resolved.user, resolved.view) == (None, None)


def test_a_resolved_executable_is_not_resolved_again(starter: ProcessStarter) -> None:
    resolved = starter.resolve({"command": ["sh"]})
    assert starter.resolve(resolved) is resolved


@pytest.mark.parametrize(
    ("executable", "message"),
    [
        ({"command": ["no-such-program"]}, "'no-such-program' does not exist on the drone's machine"),
        ({"command": ["sh"], "cwd": "/no/such/folder"}, "'/no/such/folder' is not a folder"),
        ({"command": ["sh"], "isolation": "bubblewrap"}, "executable.isolation"),
        ({"command": ["sh"], "resource_limits": {"cpu_period_percent": 50}}, "executable.resource_limits"),
    ],
)
def test_an_executable_that_cannot_be_started_is_refused(
    starter: ProcessStarter, executable: object, message: str
) -> None:
    with pytest.raises(BackendFailed, match=message):
        starter.resolve(executable)
