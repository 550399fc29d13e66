"""With which command line is a backend's process started? Pure: `process.runtime` starts it.

From outside in: a shell that enters the control group and sets limits, if there are any; the supervisor, which writes
how the command ended (bubblewrap, or the shell itself); setpriv, which drops to another user; a shell that checks that
the lease has not expired, and reads the command's environment; the command. All but the last two may be root's. They
are started with `supervisor_environment` alone, since a variable such as LD_PRELOAD would have code of the backend's
run in them. Each of these programs costs half a millisecond of a start, setpriv one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from plane.protocol.spawn import ResourceLimits
from plane.runtime.process.backend_user import UserIds
from plane.runtime.process.homes import PRIVATE_HOME, PRIVATE_RUNTIME_FOLDER
from plane.runtime.process.procfs import DRONE_MARK
from plane.runtime.process.visible_files import PRIVATE, FileView

__all__ = ["DATA_FOLDER", "BubblewrapPlan", "LaunchPlan", "command_line", "supervisor_environment"]

# Where a mount appears, as in a container.
DATA_FOLDER = "/plane-data"
# Where something of its own is mounted over what the machine has in its root folder, if it has it there.
PLACES = ("/dev", "/proc", "/tmp", "/run")  # noqa: S108
# Of root's capabilities for a command that is root. None of them helps to undo what is read-only.
ROOT_CAPABILITIES = ("CHOWN", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
# Of setpriv, which drops them with the user.
SETPRIV_CAPABILITIES = ("SETGID", "SETPCAP", "SETUID")
# What of the drone's environment supervisors get.
INHERITED_BY_SUPERVISORS = ("PATH",)
# Of what a backend is given, the variables by which its processes are found.
MARKS = ("SESSION_BACKEND_ID", DRONE_MARK, "PORT")
# Reads the environment from the script at stdin, by its name: the command shares no position in it with anybody. Not
# on the command line, which all users of a machine can read.
SET_ENVIRONMENT = ". /proc/self/fd/0"


@dataclass(frozen=True, slots=True, kw_only=True)
class BubblewrapPlan:
    """How the command sees the machine.

    Attributes:
        program: bubblewrap's path.
        status: inherited descriptor for its JSON status.
        root: what stands in the machine's root folder: None for a folder, a link's target, "" for anything else.
        mount: inherited descriptor of the folder to mount.
        held: inherited descriptor that stays open until the last process has ended, and that the command does not get.
        files: what it sees of the machine's files.
        own_network: a network namespace that has nothing but loopback.
        is_root: started as root, whose capabilities are then given up.
    """

    program: str
    status: int
    root: Mapping[str, str | None]
    cwd: str
    mount: int | None = None
    held: int | None = None
    files: FileView = field(default_factory=FileView)
    own_network: bool = False
    is_root: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """What is wanted.

    Attributes:
        command: argv, with the program's path.
        setpriv: the path of that program. None of ours is looked for in the PATH that the command is given.
        user: ids to drop to, without any capability.
        empties_bounding_set: with the user, see `plane.runtime.process.backend_user.may_drop_bounding_set`.
        enter: files into which the process writes 0, to enter its control groups.
        limits: what of them is set by rlimit.
        open_files: the limit to begin with, which it may raise again; None: the drone's own.
        bubblewrap: None: no isolation.
        reaper: argv of a supervisor that ends what leaves the command, see `plane.runtime.process.subreaper`; empty: a
            shell
            supervises, since bubblewrap or a control group does that.
        status_file: where the supervisor writes how the command ended; without bubblewrap.
        not_after_s: the command is not started later than this, in whole seconds of CLOCK_BOOTTIME; None: whenever.
        sets_environment: stdin is a script that sets the command's environment, see
            `plane.decisions.backends.shell_exports`.
    """

    command: Sequence[str]
    setpriv: str
    user: UserIds | None = None
    empties_bounding_set: bool = True
    enter: Sequence[str] = ()
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    open_files: int | None = None
    bubblewrap: BubblewrapPlan | None = None
    reaper: Sequence[str] = ()
    status_file: str = ""
    not_after_s: int | None = None
    sets_environment: bool = False


def supervisor_environment(drone: Mapping[str, str], backend: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a backend's supervisors, from the drone's and the one of the backend's command."""
    inherited = {name: drone[name] for name in INHERITED_BY_SUPERVISORS if name in drone}
    return inherited | {name: backend[name] for name in MARKS if name in backend}


def command_line(plan: LaunchPlan) -> list[str]:
    """The argv."""
    command = list(plan.command)
    if preparation := _preparation(plan):
        command = _shell(preparation, command)
    if plan.user is not None:
        uid, gid = plan.user
        words = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]
        words += ["--bounding-set=-all"] if plan.empties_bounding_set else []
        command = [plan.setpriv, *words, "--", *command]
    settings = [f"echo 0 > '{path}'" for path in plan.enter]
    settings += _rlimits(plan.limits)
    if plan.bubblewrap is not None:
        supervisor = [*_bubblewrap(plan.bubblewrap, plan), *command]
        return _shell([*settings, 'exec "$@"'], supervisor) if settings else supervisor
    if plan.reaper:
        # Outside of the limits: they are the command's alone.
        limited = _shell([*settings, 'exec "$@"'], command) if settings else command
        return [*plan.reaper, plan.status_file, "--", *limited]
    # The code as bubblewrap writes it, in one write, and as the shell's own for a drone that still is its parent.
    report = """"$@"; code=$?; echo '{"exit-code": '$code'}' >> "$status"; exit $code"""
    return _shell([*settings, "status=$1", "shift", report], [plan.status_file, *command])


def _preparation(plan: LaunchPlan) -> list[str]:
    """Steps of the last shell, which becomes the command."""
    steps = [] if plan.open_files is None else [f"ulimit -S -n {plan.open_files}"]
    if plan.not_after_s is not None:
        # The drone may have been stopped just before it started this. The first number is CLOCK_BOOTTIME.
        steps += ["read -r uptime _ < /proc/uptime", f'[ "${{uptime%.*}}" -lt {plan.not_after_s} ]']
    if plan.sets_environment:
        return [*steps, SET_ENVIRONMENT, 'exec "$@" < /dev/null']
    return [*steps, 'exec "$@"'] if steps else []


def _shell(steps: Sequence[str], arguments: Sequence[str]) -> list[str]:
    return ["/bin/sh", "-c", " && ".join(steps), "sh", *arguments]


def _rlimits(limits: ResourceLimits) -> list[str]:
    settings = []
    if limits.memory_limit_bytes is not None:
        settings.append(f"ulimit -v {max(1, limits.memory_limit_bytes // 1024)}")
    if limits.cpu_time_limit is not None:
        settings.append(f"ulimit -t {limits.cpu_time_limit}")
    if limits.disk_limit_bytes is not None:
        settings.append(f"ulimit -f {max(1, limits.disk_limit_bytes // 512)}")
    return settings


def _bubblewrap(plan: BubblewrapPlan, whole_plan: LaunchPlan) -> list[str]:
    """The machine's files to read, /tmp and the mount to write, processes of its own to see."""
    has_places = all(path in plan.root and plan.root[path] is None for path in PLACES)
    whole = plan.mount is None and has_places
    words = [plan.program, *(_whole_root(plan.root) if whole else _own_root(plan.root))]
    words += ["--dev", "/dev", "--proc", "/proc"]
    # Semaphores and shared memory (sem_open, shm_open) are files there. Bubblewrap makes the folder for its own user.
    words += ["--perms", "1777", "--tmpfs", "/dev/shm"]  # noqa: S108
    for path in PRIVATE:
        words += ["--perms", "1777", "--tmpfs", path]
    words += ["--ro-bind-try", "/run/systemd/resolve", "/run/systemd/resolve"]
    # Nobody else is in there, and bubblewrap makes nothing for another user.
    words += ["--perms", "0777", "--dir", PRIVATE_HOME, "--perms", "0777", "--dir", PRIVATE_RUNTIME_FOLDER]
    for path in plan.files.masked:
        words += ["--tmpfs", path]
    for path in plan.files.ways():
        # Bubblewrap would let nobody but itself pass.
        words += ["--perms", "0755", "--dir", path]
    for path in plan.files.exposed:
        words += ["--ro-bind", path, path]
    for path in plan.files.masked:
        words += ["--remount-ro", path]
    for path, is_file in plan.files.hidden.items():
        words += ["--ro-bind", "/dev/null", path] if is_file else ["--tmpfs", path]
    if plan.mount is not None:
        words += ["--bind-fd", str(plan.mount), DATA_FOLDER]
    if plan.held is not None:
        words += ["--sync-fd", str(plan.held)]
    words += ["--remount-ro", "/", "--unshare-pid", "--unshare-ipc", "--chdir", plan.cwd]
    if plan.own_network:
        words.append("--unshare-net")
    if plan.is_root:
        kept: Sequence[str] = ROOT_CAPABILITIES if whole_plan.user is None else SETPRIV_CAPABILITIES
        if not whole_plan.empties_bounding_set:
            kept = tuple(name for name in kept if name != "SETPCAP")
        words += ["--cap-drop", "ALL", *(word for name in kept for word in ("--cap-add", f"CAP_{name}"))]
    return [*words, "--json-status-fd", str(plan.status), "--"]


def _whole_root(root: Mapping[str, str | None]) -> list[str]:
    """The machine's root, read-only, without the folder where `_own_root` would show a mount."""
    words = ["--ro-bind", "/", "/"]
    if DATA_FOLDER in root:
        words += ["--tmpfs", DATA_FOLDER, "--remount-ro", DATA_FOLDER]
    return words


def _own_root(root: Mapping[str, str | None]) -> list[str]:
    """A root with the machine's folders, read-only, in which there is a place for the mount."""
    words = ["--tmpfs", "/"]
    for path, target in root.items():
        if path not in ("/dev", "/proc", DATA_FOLDER, *PRIVATE) and target != "":
            words += ["--ro-bind", path, path] if target is None else ["--symlink", target, path]
    return words
