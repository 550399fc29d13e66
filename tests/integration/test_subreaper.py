"""No descendant survives a supervised command, whatever it does to its parents, sessions and environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import plane.runtime.process.subreaper
from harness.clusters import until
from plane.runtime.process.procfs import descendants, kill_pids

PROGRAM = plane.runtime.process.subreaper.__file__
# Leaves its parent, its session and its environment, as a daemon does; writes its id.
DAEMON = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.execve(sys.executable, [sys.executable, "-S", "-c",
    "import os, time; print(os.getpid(), flush=True); time.sleep(600)"], {})
"""
FORKER = """
import os, time
end = time.monotonic() + 600
while time.monotonic() < end:
    if os.fork() == 0: os.setsid()
    else: os._exit(0)
"""


def inherited_ignored() -> int:
    """The signals that this process ignores, but for those that Python ignores by itself; bit n - 1 is signal n."""
    [ignored] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "SigIgn" in line]
    return int(ignored, 16) & ~(1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


class Supervisor:
    def __init__(self, folder: Path, *command: str) -> None:
        self.status = folder / "status"
        arguments = [sys.executable, "-I", "-S", PROGRAM, str(self.status), "--", *command]
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )

    def line(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def ends(self) -> int:
        return self.process.wait(30)


@pytest.fixture
def supervisors(tmp_path: Path) -> Iterator[list[Supervisor]]:
    started: list[Supervisor] = []
    yield started
    for it in started:
        if it.process.poll() is None:
            kill_pids(reversed(descendants(it.process.pid)))
            it.process.wait()
        for stream in (it.process.stdout, it.process.stderr):
            assert stream is not None
            stream.close()


def is_there(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -9 $$"], 137),
        (["/nowhere/at/all"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_exit_code_is_the_commands(
    supervisors: list[Supervisor], tmp_path: Path, command: list[str], code: int
) -> None:
    supervisors.append(it := Supervisor(tmp_path, *command))
    assert it.ends() == code
    assert it.status.read_text() == f'{{"exit-code": {code}}}\n'


def test_a_daemon_ends_with_the_command(supervisors: list[Supervisor], tmp_path: Path) -> None:
    script = f"{sys.executable} -S -c '{DAEMON}'; sleep 600"
    supervisors.append(it := Supervisor(tmp_path, "sh", "-c", script))
    daemon = it.line()
    # Far from the command's end it is this supervisor's child, and alive.
    until(lambda: daemon in descendants(it.process.pid))
    command = descendants(it.process.pid)[1]
    os.kill(command, signal.SIGKILL)
    assert it.ends() == 137
    assert not is_there(daemon)


def test_a_fork_bomb_ends_with_the_command(supervisors: list[Supervisor], tmp_path: Path) -> None:
    supervisors.append(it := Supervisor(tmp_path, "sh", "-c", f"{sys.executable} -S -c '{FORKER}' & sleep 0.5"))
    assert it.ends() == 0
    time.sleep(0.1)
    assert not any(
        b"import os, time\nend = time" in path.read_bytes()
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if is_there(int(path.parent.name))
    )


def test_signals_to_the_session_end_the_command_and_not_its_supervisor(
    supervisors: list[Supervisor], tmp_path: Path
) -> None:
    supervisors.append(it := Supervisor(tmp_path, "sh", "-c", "echo 1; kill -TERM 0; sleep 600"))
    it.line()
    assert it.ends() == 143
    assert it.status.read_text() == '{"exit-code": 143}\n'


def test_the_command_has_default_signal_dispositions_and_no_descriptor_of_the_supervisor(
    supervisors: list[Supervisor], tmp_path: Path
) -> None:
    script = "grep -E 'SigIgn|SigBlk' /proc/self/status; ls /proc/self/fd"
    supervisors.append(it := Supervisor(tmp_path, "sh", "-c", script))
    assert it.ends() == 0
    assert it.process.stdout is not None
    blocked, ignored, *descriptors = it.process.stdout.read().decode().split("\n")
    assert int(blocked.split()[1], 16) == 0
    # What the tests themselves were started with, a shell's background job for example, is inherited; Python's own
    # choices are not.
    assert int(ignored.split()[1], 16) & ~inherited_ignored() == 0
    # The last one is that of ls itself.
    assert descriptors == ["0", "1", "2", "3", ""]
