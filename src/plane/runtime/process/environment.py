"""Pass the environment of a backend's command past its supervisors, as a script in memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence

from plane.decisions.backends.exec_limits import describe_excess, total_limit_bytes
from plane.decisions.backends.shell_exports import export_script, is_shell_name
from plane.runtime.base import BackendFailed

__all__ = ["check_shell_names", "check_sizes", "open_environment"]


def check_shell_names(variables: Mapping[str, str]) -> None:
    """Refuse variables that the shell before the command would drop silently.

    Raises:
        BackendFailed: names the variable.
    """
    for name in variables:
        if not is_shell_name(name):
            raise BackendFailed(
                f"executable.env: {name!r} cannot be passed to a process: a name consists of letters, digits and _, "
                "and does not begin with a digit"
            )


def check_sizes(command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Refuse a command and variables that exceed a limit of the kernel, each alone or all together.

    Raises:
        BackendFailed: names the largest.
    """
    stack_bytes, _ = resource.getrlimit(resource.RLIMIT_STACK)
    limit = total_limit_bytes(None if stack_bytes == resource.RLIM_INFINITY else stack_bytes)
    if (reason := describe_excess(command, variables, limit)) is not None:
        raise BackendFailed(reason)


def open_environment(variables: Mapping[str, str]) -> int:
    """Return a descriptor of a script that exports the variables; see `plane.runtime.process.launch.SET_ENVIRONMENT`.

    The script is a file in memory, which any user with the descriptor may open.

    Raises:
        OSError: too many open files.
        ValueError: a value has a NUL character.
    """
    script = os.fsencode(export_script(variables))
    descriptor = os.memfd_create("plane-environment", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(script)
    return descriptor
