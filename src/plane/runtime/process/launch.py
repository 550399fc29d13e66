"""Build the command line that starts a backend's process. Pure: `process.start` starts it.

The programs, from outside in:

1. A shell that enters the control group and sets limits, if there are any.
2. The supervisor, which writes the exit code of the command: bubblewrap, a subreaper, or the first shell itself.
3. A shell that enters the command's folder, if it has one and is not isolated.
4. setpriv, which drops to another user.
5. A shell that checks that the lease has not expired, and reads the command's environment.
6. The command.

The first three may run as root. They are started with `supervisor_environment` only: a variable such as LD_PRELOAD
would execute code of the backend in them. Each program costs half a millisecond of a start, setpriv one.
"""

from __future__ import annotations

import shlex
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
# Folders of the root folder over which bubblewrap mounts something private, if they exist.
MOUNT_POINTS = ("/dev", "/proc", "/tmp", "/run")  # noqa: S108
# Capabilities of a command that runs as root. None of them can make a read-only mount writable.
ROOT_CAPABILITIES = ("CHOWN", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
# Capabilities of setpriv, which drops them with the user.
SETPRIV_CAPABILITIES = ("SETGID", "SETPCAP", "SETUID")
# Variables of the drone's environment that supervisors receive.
INHERITED_BY_SUPERVISORS = ("PATH",)
# Variables of a backend's environment that identify its processes.
MARKS = ("SESSION_BACKEND_ID", DRONE_MARK, "PORT")
# Reads the environment from the script at stdin. By its path, so that no other process shares its file position. Not on
# the command line, which all users of a machine can read.
SET_ENVIRONMENT = ". /proc/self/fd/0"


@dataclass(frozen=True, slots=True, kw_only=True)
class BubblewrapPlan:
    """How the command is isolated from the machine.

    Attributes:
        program: path of bubblewrap.
        status: inherited descriptor for its JSON status.
        root: the entries of the machine's root folder: None for a folder, the target of a link, "" for anything else.
        mount: inherited descriptor of the folder to mount.
        held: inherited descriptor that stays open until the last process has ended. The command does not inherit it.
        files: what the command sees of the machine's files.
        own_network: whether it has a network namespace with only a loopback interface.
        is_root: whether bubblewrap is started as root, whose capabilities are then dropped.
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
    """How a command is started.

    Attributes:
        command: argv, with the path of the program.
        setpriv: path of setpriv. No program of the chain is looked up in the PATH of the command.
        user: ids to drop to, without any capability; None: the drone's.
        empties_bounding_set: whether to do that with the user, see
            `plane.runtime.process.backend_user.may_drop_bounding_set`.
        enter: files that the process writes 0 to, to enter its control groups.
        limits: the limits to set by rlimit.
        open_files: the soft limit of open files, which the command may raise again; None: the drone's.
        bubblewrap: None: no isolation.
        folder: absolute path of the folder to start in; None: the root. Not used with bubblewrap, which has its own.
        reaper: argv of a supervisor that ends processes which leave the command, see `plane.runtime.process.subreaper`.
            Empty: bubblewrap or a control group does that, and a shell supervises.
        status_file: where the supervisor writes the exit code; not used with bubblewrap.
        not_after_s: the command is not started later than this, in whole seconds of CLOCK_BOOTTIME; None: no deadline.
        sets_environment: whether stdin is a script that sets the command's environment, see
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
    folder: str | None = None
    reaper: Sequence[str] = ()
    status_file: str = ""
    not_after_s: int | None = None
    sets_environment: bool = False


def supervisor_environment(drone: Mapping[str, str], backend: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a backend's supervisors, given those of the drone and of the backend's command."""
    inherited = {name: drone[name] for name in INHERITED_BY_SUPERVISORS if name in drone}
    return inherited | {name: backend[name] for name in MARKS if name in backend}


def command_line(plan: LaunchPlan) -> list[str]:
    """Return argv of the outermost program."""
    command = list(plan.command)
    if preparation := _preparation(plan):
        command = _shell(preparation, command)
    if plan.user is not None:
        uid, gid = plan.user
        arguments = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]
        arguments += ["--bounding-set=-all"] if plan.empties_bounding_set else []
        command = [plan.setpriv, *arguments, "--", *command]
    if plan.bubblewrap is None and plan.folder is not None:
        # Not by the drone: its file system may hang, and a process that starts another one waits until that has entered
        # its folder. Not by the supervisor either, which must be able to report the end.
        command = _shell([f"cd -P -- {shlex.quote(plan.folder)}", "unset OLDPWD", 'exec "$@"'], command)
    settings = [f"echo 0 > '{path}'" for path in plan.enter]
    settings += _rlimits(plan.limits)
    if plan.bubblewrap is not None:
        supervisor = [*_bubblewrap(plan.bubblewrap, plan), *command]
        return _shell([*settings, 'exec "$@"'], supervisor) if settings else supervisor
    if plan.reaper:
        # The supervisor is outside of the limits, which apply to the command only.
        limited = _shell([*settings, 'exec "$@"'], command) if settings else command
        return [*plan.reaper, plan.status_file, "--", *limited]
    # The exit code in the format of bubblewrap, in one write, and as the shell's own for a drone that is still its
    # parent.
    report = """"$@"; code=$?; echo '{"exit-code": '$code'}' >> "$status"; exit $code"""
    return _shell([*settings, "status=$1", "shift", report], [plan.status_file, *command])


def _preparation(plan: LaunchPlan) -> list[str]:
    """Return the steps of the last shell, which becomes the command."""
    steps = [] if plan.open_files is None else [f"ulimit -S -n {plan.open_files}"]
    if plan.not_after_s is not None:
        # The drone may have been stopped just before this start. The first number of the file is CLOCK_BOOTTIME.
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


def _bubblewrap(plan: BubblewrapPlan, launch: LaunchPlan) -> list[str]:
    """Return bubblewrap's argv. Files are read-only except for the mount and private folders; processes are private."""
    has_mount_points = all(path in plan.root and plan.root[path] is None for path in MOUNT_POINTS)
    shows_whole_root = plan.mount is None and has_mount_points
    arguments = [plan.program, *(_machine_root(plan.root) if shows_whole_root else _new_root(plan.root))]
    arguments += ["--dev", "/dev", "--proc", "/proc"]
    # Semaphores and shared memory (sem_open, shm_open) are files there. Bubblewrap creates the folder for its own user.
    arguments += ["--perms", "1777", "--tmpfs", "/dev/shm"]  # noqa: S108
    for path in PRIVATE:
        arguments += ["--perms", "1777", "--tmpfs", path]
    arguments += ["--ro-bind-try", "/run/systemd/resolve", "/run/systemd/resolve"]
    # Mode 0777: bubblewrap cannot create folders for another user, and no other backend sees these.
    arguments += ["--perms", "0777", "--dir", PRIVATE_HOME, "--perms", "0777", "--dir", PRIVATE_RUNTIME_FOLDER]
    for path in plan.files.masked:
        arguments += ["--tmpfs", path]
    for path in plan.files.parents():
        # By default bubblewrap lets only its own user pass.
        arguments += ["--perms", "0755", "--dir", path]
    for path in plan.files.exposed:
        arguments += ["--ro-bind", path, path]
    for path in plan.files.masked:
        arguments += ["--remount-ro", path]
    for path, is_file in plan.files.hidden.items():
        arguments += ["--ro-bind", "/dev/null", path] if is_file else ["--tmpfs", path]
    if plan.mount is not None:
        arguments += ["--bind-fd", str(plan.mount), DATA_FOLDER]
    if plan.held is not None:
        arguments += ["--sync-fd", str(plan.held)]
    arguments += ["--remount-ro", "/", "--unshare-pid", "--unshare-ipc", "--chdir", plan.cwd]
    if plan.own_network:
        arguments.append("--unshare-net")
    if plan.is_root:
        arguments += _capabilities(launch)
    return [*arguments, "--json-status-fd", str(plan.status), "--"]


def _capabilities(launch: LaunchPlan) -> list[str]:
    """Return the options that drop root's capabilities but those that the rest of the chain needs."""
    names = ROOT_CAPABILITIES if launch.user is None else SETPRIV_CAPABILITIES
    arguments = ["--cap-drop", "ALL"]
    for name in names:
        if name != "SETPCAP" or launch.empties_bounding_set:
            arguments += ["--cap-add", f"CAP_{name}"]
    return arguments


def _machine_root(root: Mapping[str, str | None]) -> list[str]:
    """Return the options for the machine's root, read-only, with an empty folder in the place of `DATA_FOLDER`."""
    arguments = ["--ro-bind", "/", "/"]
    if DATA_FOLDER in root:
        arguments += ["--tmpfs", DATA_FOLDER, "--remount-ro", DATA_FOLDER]
    return arguments


def _new_root(root: Mapping[str, str | None]) -> list[str]:
    """Return the options for a new root with the machine's folders, read-only, in which the mount can be added."""
    arguments = ["--tmpfs", "/"]
    for path, target in root.items():
        if path not in ("/dev", "/proc", DATA_FOLDER, *PRIVATE) and target != "":
            arguments += ["--ro-bind", path, path] if target is None else ["--symlink", target, path]
    return arguments
