"""Validate an executable of the process runtime, and find its command on this machine.

A limit or an isolation that this machine cannot enforce is refused, never weakened. Used by `process.start`. The shape
is `plane.protocol.spawn.ProcessExecutable`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from plane.protocol.spawn import Isolation, Network, ProcessExecutable
from plane.runtime.base import BackendFailed, check_variable_names, parse_executable
from plane.runtime.process.backend_user import UserIds
from plane.runtime.process.environment import check_shell_names
from plane.runtime.process.visible_files import PRIVATE, FileView, can_execute

__all__ = ["is_isolated", "read_executable", "resolve_command"]


def read_executable(executable: Any, *, bubblewrap: bool, shares_of_cpu: bool, mounts: bool) -> ProcessExecutable:
    """Return the validated executable.

    Args:
        bubblewrap: whether it works on this machine.
        shares_of_cpu: whether the drone can enforce them.
        mounts: whether the drone has a folder for them.

    Raises:
        BackendFailed: names the field and what it must be.
    """
    if isinstance(executable, dict) and "image" in executable and "command" not in executable:
        raise BackendFailed(
            'executable: this drone runs processes, not images; give {"command": ["program", "argument", …]}, '
            "or use a drone with Docker"
        )
    shape = '{"command": ["program", "argument", …], "env": {…}, "cwd": "/folder"}'
    parsed = parse_executable(executable, ProcessExecutable, shape)
    if not parsed.command or not parsed.command[0]:
        raise BackendFailed("executable.command: must name a program and its arguments")
    check_variable_names(parsed.env)
    check_shell_names(parsed.env)
    if parsed.isolation is Isolation.BUBBLEWRAP and not bubblewrap:
        raise BackendFailed(
            "executable.isolation: bubblewrap is not installed on the drone's machine, or may not create namespaces "
            "there; install it, or leave isolation out"
        )
    if parsed.mount and mounts and not is_isolated(parsed, bubblewrap=bubblewrap):
        raise BackendFailed(
            "executable.mount: a process without isolation cannot have a mount; leave out the mount, or use isolation "
            "bubblewrap"
        )
    if parsed.network is Network.NONE and not is_isolated(parsed, bubblewrap=bubblewrap):
        raise BackendFailed(
            "executable.network: a process without isolation has the machine's network; leave out network, or use "
            "isolation bubblewrap"
        )
    if parsed.resource_limits.cpu_period_percent is not None and not shares_of_cpu:
        raise BackendFailed(
            "executable.resource_limits: a share of CPU cannot be enforced, since this drone may not create "
            "control groups; leave out cpu_period_percent, or use a drone with Docker"
        )
    return parsed


def is_isolated(executable: ProcessExecutable, *, bubblewrap: bool) -> bool:
    """Return whether it runs in bubblewrap: if the executable says so, or says nothing and bubblewrap works here."""
    return bubblewrap if executable.isolation is None else executable.isolation is Isolation.BUBBLEWRAP


def resolve_command(executable: ProcessExecutable, user: UserIds | None, view: FileView | None) -> list[str]:
    """Return argv with the path of the program: the first match that the backend may execute.

    Args:
        user: the user that it runs as; None: the drone's user.
        view: what it sees of the machine's files; None: not isolated.

    Raises:
        BackendFailed: the program or folder does not exist, or isolation hides it.
    """
    if executable.cwd is not None:
        if not Path(executable.cwd).is_dir():
            raise BackendFailed(f"executable.cwd: {executable.cwd!r} is not a folder on the drone's machine")
        _check_visible("executable.cwd", executable.cwd, view)
    program = executable.command[0]
    if "/" in program:
        found = [path for path in [shutil.which(str(Path(executable.cwd or "/") / program))] if path]
    else:
        folders = executable.env.get("PATH", os.environ.get("PATH", os.defpath)).split(os.pathsep)
        found = [path for folder in folders if (path := shutil.which(program, path=folder))]
    if not found:
        raise BackendFailed(
            f"executable.command: {program!r} does not exist on the drone's machine, or is not executable; install it "
            "there, or give its full path"
        )
    # File modes do not decide alone. If no match has a suitable mode, the kernel decides about the first one.
    path = found[0] if len(found) == 1 else next((path for path in found if can_execute(path, user, view)), found[0])
    _check_visible("executable.command", path, view)
    return [path, *executable.command[1:]]


def _check_visible(field: str, path: str, view: FileView | None) -> None:
    for each in {path, os.path.realpath(path)}:
        if view is not None and not view.shows(each):
            raise BackendFailed(
                f"{field}: isolation hides {each!r}: each backend has its own {', '.join(PRIVATE)}, and does not see "
                "private folders of other users; show the folder with the drone's --expose, or use isolation none"
            )
