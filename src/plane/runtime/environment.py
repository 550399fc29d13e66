"""The environment of a backend's command, on its way from the drone past the supervisors."""

from __future__ import annotations

import os
from collections.abc import Mapping

from plane.decisions.shell_exports import export_script, is_shell_name
from plane.runtime.base import BackendFailed

__all__ = ["check_names", "check_sizes", "open_environment"]

# Linux: MAX_ARG_STRLEN, for each "NAME=value" with its NUL.
STRING_LIMIT_BYTES = 128 * 1024


def check_names(variables: Mapping[str, str]) -> None:
    """Refuse variables that the shell before the command would drop without a word.

    Raises:
        BackendFailed: names the variable.
    """
    for name in variables:
        if not is_shell_name(name):
            raise BackendFailed(
                f"executable.env: {name!r} cannot be given to a process: a name has letters, digits and _ alone, and "
                "no digit first"
            )


def check_sizes(variables: Mapping[str, str]) -> None:
    """Refuse variables that are too long for the kernel. A request to connect is smaller than all may be together.

    Raises:
        BackendFailed: names the variable.
    """
    for name, value in variables.items():
        if (size := len(os.fsencode(f"{name}={value}")) + 1) > STRING_LIMIT_BYTES:
            raise BackendFailed(
                f"executable.env: {name} has {size} bytes with its name, and Linux allows {STRING_LIMIT_BYTES}; put it "
                "into a file"
            )


def open_environment(variables: Mapping[str, str]) -> int:
    """Return a descriptor of a script that exports the variables; see `plane.runtime.launch.SET_ENVIRONMENT`.

    It is a file in memory, which any user may open who has the descriptor.

    Raises:
        OSError, ValueError: there are too many open files; a value has a NUL character.
    """
    script = os.fsencode(export_script(variables))
    descriptor = os.memfd_create("plane-environment", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(script)
    return descriptor
