"""The command line of a process, from outside in."""

from __future__ import annotations

import subprocess
from pathlib import Path

from plane.protocol.spawn import ResourceLimits
from plane.runtime.launch import BubblewrapPlan, LaunchPlan, command_line

ROOT = {"/usr": None, "/bin": "usr/bin", "/tmp": None, "/proc": None, "/plane-data": None}


def test_without_anything_it_ends_with_the_drone() -> None:
    assert command_line(LaunchPlan(command=["prog", "a b"])) == [
        "setpriv",
        "--pdeathsig",
        "SIGKILL",
        "--",
        "prog",
        "a b",
    ]


def test_a_shell_supervises_what_outlives_the_drone(tmp_path: Path) -> None:
    status, entered = tmp_path / "status of 'it'", tmp_path / "procs"
    limits = ResourceLimits(cpu_time_limit=7, disk_limit_bytes=1024, memory_limit_bytes=2**31)
    script = 'ulimit -t; ulimit -f; echo "$1"; exit 5'
    plan = LaunchPlan(
        command=["/bin/sh", "-c", script, "sh", "an 'argument' $HOME"],
        enter=[str(entered)],
        limits=limits,
        status_file=str(status),
        outlives=True,
    )
    done = subprocess.run(command_line(plan), capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stdout.splitlines() == ["7", "2", "an 'argument' $HOME"]
    assert status.read_text() == '{"exit-code": 5}\n'
    assert entered.read_text().strip().isdigit()


def test_bubblewrap_shows_what_it_is_told_to() -> None:
    plan = BubblewrapPlan(
        status=7,
        root=ROOT,
        cwd="/work",
        mount=8,
        exposed=["/tmp/venv"],
        hidden={"/db": True, "/files": False},
        is_root=True,
    )
    line = " ".join(command_line(LaunchPlan(command=["prog"], user=(65534, 100), bubblewrap=plan, outlives=True)))
    for part in (
        "--ro-bind /usr /usr",
        "--symlink usr/bin /bin",
        "--tmpfs /tmp",
        "--ro-bind /tmp/venv /tmp/venv",
        "--ro-bind /dev/null /db",
        "--tmpfs /files",
        "--bind-fd 8 /plane-data",
        "--remount-ro /",
        "--cap-drop ALL",
        "--json-status-fd 7",
        "-- setpriv --reuid=65534 --regid=100 --clear-groups --no-new-privs -- prog",
    ):
        assert part in line, part
    assert "--ro-bind /proc" not in line
    assert "--ro-bind /plane-data" not in line
    assert "--die-with-parent" not in line
    ends = command_line(LaunchPlan(command=["prog"], bubblewrap=plan))
    assert ends[:2] == ["setpriv", "--pdeathsig"]
    assert "--die-with-parent" in ends
