"""The environment of a backend's command, on its way from the drone past the supervisors."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence

from plane.decisions.backends.exec_limits import excess, total_limit_bytes
from plane.decisions.backends.shell_exports import export_script, is_shell_name
from plane.runtime.base import BackendFailed

__all__ = ["check_names", "check_sizes", "open_environment"]


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


def check_sizes(command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Refuse a command and variables that are too large for the kernel, one by one or together.

    Raises:
        BackendFailed: names the largest.
    """
    stack_bytes, _ = resource.getrlimit(resource.RLIMIT_STACK)
    limit = total_limit_bytes(None if stack_bytes == resource.RLIM_INFINITY else stack_bytes)
    if (reason := excess(command, variables, limit)) is not None:
        raise BackendFailed(reason)


def open_environment(variables: Mapping[str, str]) -> int:
    """Return a descriptor of a script that exports the variables; see `plane.runtime.process.launch.SET_ENVIRONMENT`.

    It is a file in memory, which any user may open who has the descriptor.

    Raises:
        OSError, ValueError: there are too many open files; a value has a NUL character.
    """
    script = os.fsencode(export_script(variables))
    descriptor = os.memfd_create("plane-environment", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(script)
    return descriptor
