"""Write environment variables as a shell script that exports them. Pure.

The last shell before a backend's command reads this script, see `plane.runtime.process.launch`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["export_script", "is_shell_name"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def is_shell_name(name: str) -> bool:
    """Return whether a shell can export a variable of this name."""
    return _NAME.fullmatch(name) is not None


def export_script(variables: Mapping[str, str]) -> str:
    """Return a POSIX shell script that exports the variables, whose names must be valid in a shell.

    ``command`` lets a shell continue after an assignment to a read-only variable, such as UID in bash.

    Raises:
        ValueError: a value has a NUL character.
    """
    if any("\0" in value for value in variables.values()):
        raise ValueError("a variable has a NUL character")
    lines = [f"command export {name}={_quoted(value)}\n" for name, value in variables.items()]
    return "".join(["{\n:\n", *lines, "} 2>/dev/null\n"])


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
