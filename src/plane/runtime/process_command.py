"""Finds the program of a process executable on this machine. Used by `process`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from plane.protocol.spawn import ProcessExecutable
from plane.runtime.base import BackendFailed

__all__ = ["found_command"]


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
