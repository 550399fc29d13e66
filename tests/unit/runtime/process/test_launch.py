"""The command line of a process, from outside in."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from plane.protocol.spawn import ResourceLimits
from plane.runtime.process.backend_user import UserIds
from plane.runtime.process.launch import BubblewrapPlan, LaunchPlan, command_line
from plane.runtime.process.visible_files import FileView

ROOT = {"/usr": None, "/bin": "usr/bin", "/tmp": None, "/proc": None, "/dev": None, "/run": None, "/swap": ""}
SETPRIV, BWRAP = "/usr/bin/setpriv", "/usr/bin/bwrap"


def test_a_shell_supervises_the_command(tmp_path: Path) -> None:
    status, entered = tmp_path / "status of 'it'", tmp_path / "procs"
    limits = ResourceLimits(cpu_time_limit=7, disk_limit_bytes=1024, memory_limit_bytes=2**31)
    script = 'ulimit -t; ulimit -f; echo "$1"; exit 5'
    plan = LaunchPlan(
        command=["/bin/sh", "-c", script, "sh", "an 'argument' $HOME"],
        setpriv=SETPRIV,
        enter=[str(entered)],
        limits=limits,
        status_file=str(status),
    )
    done = subprocess.run(command_line(plan), capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stdout.splitlines() == ["7", "2", "an 'argument' $HOME"]
    assert status.read_text() == '{"exit-code": 5}\n'
    assert entered.read_text() == "0\n"


def test_a_reaper_supervises_outside_of_the_commands_limits() -> None:
    plan = LaunchPlan(
        command=["prog", "arg"],
        setpriv=SETPRIV,
        limits=ResourceLimits(memory_limit_bytes=2**20),
        reaper=["python", "reaper.py"],
        status_file="/status",
    )
    assert command_line(plan)[:5] == ["python", "reaper.py", "/status", "--", "/bin/sh"]
    assert command_line(plan)[-2:] == ["prog", "arg"]
    assert "ulimit -v 1024" in " ".join(command_line(plan))


def shown(root: dict[str, str | None], mount: int | None) -> str:
    plan = BubblewrapPlan(
        program=BWRAP,
        status=7,
        root=root,
        cwd="/work",
        mount=mount,
        files=FileView(
            ["/root"], ["/root/my/code", "/root/my/code/below", "/tmp/venv"], {"/db": True, "/files": False}
        ),
        is_root=True,
    )
    command = LaunchPlan(command=["prog"], setpriv=SETPRIV, user=UserIds(65534, 100), bubblewrap=plan)
    line = " ".join(command_line(command))
    for part in (
        "--tmpfs /tmp",
        "--dev /dev --proc /proc --perms 1777 --tmpfs /dev/shm",
        "--tmpfs /root --perms 0755 --dir /root/my --ro-bind /root/my/code /root/my/code",
        "--ro-bind /tmp/venv /tmp/venv --remount-ro /root",
        "--ro-bind /dev/null /db",
        "--tmpfs /files",
        "--remount-ro /",
        "--cap-drop ALL --cap-add CAP_SETGID --cap-add CAP_SETPCAP --cap-add CAP_SETUID",
        "--json-status-fd 7",
        "-- /usr/bin/setpriv --reuid=65534 --regid=100 --clear-groups --no-new-privs --inh-caps=-all "
        "--bounding-set=-all -- prog",
    ):
        assert part in line, part
    assert line.startswith(f"{BWRAP} ")
    assert "--ro-bind /proc" not in line
    assert "--ro-bind /plane-data" not in line
    return line


def test_bubblewrap_shows_the_whole_root() -> None:
    line = shown({**ROOT, "/plane-data": None}, mount=None)
    assert f"{BWRAP} --ro-bind / / --tmpfs /plane-data --remount-ro /plane-data --" in line
    assert "/usr /usr" not in line
    assert "/plane-data" not in shown(ROOT, mount=None)


@pytest.mark.parametrize(
    ("root", "mount"),
    [(ROOT, 8), ({**ROOT, "/plane-data": None}, 8), ({**ROOT, "/tmp": "private/tmp"}, None), ({"/usr": None}, None)],
    ids=["a mount", "a mount over a folder", "a link where a folder is needed", "no such folder"],
)
def test_a_mount_needs_a_new_root(root: dict[str, str | None], mount: int | None) -> None:
    line = shown(root, mount)
    assert f"{BWRAP} --tmpfs / --ro-bind /usr /usr" in line
    assert ("--symlink usr/bin /bin" in line) == ("/bin" in root)
    assert ("--bind-fd 8 /plane-data" in line) == (mount == 8)
    assert "/swap" not in line


@pytest.mark.parametrize(("margin_s", "started"), [(-1, False), (0, False), (60, True)])
def test_a_command_is_not_started_after_its_deadline(margin_s: int, started: bool, tmp_path: Path) -> None:
    now_s = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000_000
    plan = LaunchPlan(
        command=["/bin/sh", "-c", "echo started"],
        setpriv=SETPRIV,
        status_file=str(tmp_path / "status"),
        not_after_s=now_s + margin_s,
    )
    done = subprocess.run(command_line(plan), capture_output=True, text=True, check=False)
    assert (done.stdout == "started\n") is started
    assert (done.returncode == 0) is started


@pytest.mark.parametrize("reaper", [(), ("/bin/sh", "-c", 'shift 2; exec "$@"', "reaper")])
def test_a_command_enters_its_folder_and_its_supervisor_does_not(reaper: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    plan = LaunchPlan(
        command=["/bin/sh", "-c", 'pwd; readlink /proc/$PPID/cwd; echo "${OLDPWD-unset}"'],
        setpriv=SETPRIV,
        folder=str(folder),
        reaper=reaper,
        status_file=str(tmp_path / "status"),
    )
    done = subprocess.run(command_line(plan), cwd="/", capture_output=True, text=True, check=True)
    own, parent, before = done.stdout.splitlines()
    assert own == str(folder)
    assert before == "unset"
    if not reaper:
        assert parent == "/"


def test_one_shell_prepares_the_command_inside_of_bubblewrap() -> None:
    plan = LaunchPlan(
        command=["prog"],
        setpriv=SETPRIV,
        user=UserIds(7, 8),
        open_files=1024,
        bubblewrap=BubblewrapPlan(program=BWRAP, status=7, root=ROOT, cwd="/"),
        not_after_s=99,
        sets_environment=True,
    )
    line = command_line(plan)
    assert line[0] == BWRAP
    assert line.count("/bin/sh") == 1
    assert line.index(SETPRIV) < line.index("/bin/sh")
    assert "ulimit -S -n 1024" in line[-3]
    assert "-lt 99" in line[-3]
