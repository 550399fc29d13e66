"""What does an executable of the process runtime ask for, and can this machine do it? Refuses, and never does less.

Used by `process`. The shape is `plane.protocol.spawn.ProcessExecutable`.
"""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path
from typing import Any

from plane.protocol.spawn import Isolation, ProcessExecutable
from plane.runtime.base import BackendFailed, check_variables, converted_executable
from plane.runtime.environment import check_names

__all__ = ["found_command", "is_isolated", "read_executable", "user_ids"]


def read_executable(executable: Any, *, bubblewrap: bool, shares_of_cpu: bool, mounts: bool) -> ProcessExecutable:
    """The executable, checked.

    Args:
        bubblewrap: it works on this machine.
        shares_of_cpu: they can be enforced.
        mounts: the drone has a folder for them.

    Raises:
        BackendFailed: names the field and what it must be.
    """
    if isinstance(executable, dict) and "image" in executable and "command" not in executable:
        raise BackendFailed(
            'executable: this drone runs processes, not images; give {"command": ["program", "argument", …]}, '
            "or use a drone with Docker"
        )
    shape = '{"command": ["program", "argument", …], "env": {…}, "cwd": "/folder"}'
    wanted = converted_executable(executable, ProcessExecutable, shape)
    if not wanted.command or not wanted.command[0]:
        raise BackendFailed("executable.command: must name a program and its arguments")
    check_variables(wanted.env)
    check_names(wanted.env)
    if wanted.isolation is Isolation.BUBBLEWRAP and not bubblewrap:
        raise BackendFailed(
            "executable.isolation: bubblewrap is not installed on the drone's machine, or may not make namespaces "
            "there; install it, or leave isolation out"
        )
    if wanted.mount and mounts and not is_isolated(wanted, bubblewrap=bubblewrap):
        raise BackendFailed(
            "executable.mount: a process without isolation cannot be given a mount; leave out the mount, or "
            "use isolation bubblewrap"
        )
    if wanted.resource_limits.cpu_period_percent is not None and not shares_of_cpu:
        raise BackendFailed(
            "executable.resource_limits: a share of CPU cannot be enforced, since this drone can make no control "
            "groups; leave out cpu_period_percent, or use a drone with Docker"
        )
    return wanted


def is_isolated(wanted: ProcessExecutable, *, bubblewrap: bool) -> bool:
    """Whether it runs in bubblewrap: if it is asked for, or nothing is and it works here."""
    return bubblewrap if wanted.isolation is None else wanted.isolation is Isolation.BUBBLEWRAP


def user_ids(user: str | None) -> tuple[int, int] | None:
    """Ids of the user, and of its group, to drop to.

    Raises:
        BackendFailed: there is no such user, or this drone may not become it.
    """
    if user is None:
        return None
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, ValueError, OverflowError):
        raise BackendFailed(f"executable.user: there is no user {user!r} on the drone's machine") from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise BackendFailed(f"executable.user: only a drone that runs as root can run backends as {user!r}")
    return entry.pw_uid, entry.pw_gid


def found_command(wanted: ProcessExecutable) -> list[str]:
    """argv with the program's path.

    Raises:
        BackendFailed: no such program or folder.
    """
    if wanted.cwd is not None and not Path(wanted.cwd).is_dir():
        raise BackendFailed(f"executable.cwd: {wanted.cwd!r} is no folder on the drone's machine")
    search = wanted.env.get("PATH", os.environ.get("PATH"))
    program = wanted.command[0]
    if "/" in program:
        program = str(Path(wanted.cwd or "/") / program)
    path = shutil.which(program, path=search)
    if path is None:
        raise BackendFailed(
            f"executable.command: {wanted.command[0]!r} does not exist on the drone's machine, or may not be executed; "
            "install it there, or give its full path"
        )
    return [path, *wanted.command[1:]]
