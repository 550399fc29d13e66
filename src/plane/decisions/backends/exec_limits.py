"""Decide whether Linux can pass the arguments and the environment of a command to a new program. Pure.

Source: execve(2), "Limits on size of arguments and environment". `plane.runtime.process.environment` reads the
machine's limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["LARGEST_TOTAL_BYTES", "STRING_LIMIT_BYTES", "container_exec_hint", "describe_excess", "total_limit_bytes"]

# The last words of error messages of runc and of shells.
_TOO_LONG = re.compile(r"argument list too long\s*$", re.IGNORECASE)
# MAX_ARG_STRLEN: the limit of each argument and of each "NAME=value", with its NUL.
STRING_LIMIT_BYTES = 128 * 1024
# ARG_MAX, which is allowed with any stack limit, and three quarters of the default stack limit, the absolute maximum.
SMALLEST_TOTAL_BYTES = 128 * 1024
LARGEST_TOTAL_BYTES = 6 * 1024 * 1024
# The kernel counts a pointer for each string.
POINTER_BYTES = 8
# The path of the program, an interpreter in its first line, and data of the kernel itself.
RESERVED_BYTES = 4096


def total_limit_bytes(stack_limit_bytes: int | None) -> int:
    """Return the limit of the total size of all strings.

    Args:
        stack_limit_bytes: the soft limit RLIMIT_STACK; None: unlimited.
    """
    quarter = LARGEST_TOTAL_BYTES if stack_limit_bytes is None else stack_limit_bytes // 4
    return max(SMALLEST_TOTAL_BYTES, min(quarter, LARGEST_TOTAL_BYTES))


def describe_excess(command: Sequence[str], variables: Mapping[str, str], total_bytes: int) -> str | None:
    """Return a message that names the field of the executable that is too large; None if everything fits.

    Args:
        total_bytes: see `total_limit_bytes`.
    """
    sizes = {f"executable.command[{index}]": _size(argument) for index, argument in enumerate(command)}
    sizes |= {f"executable.env: {name}": _size(name) + _size(value) for name, value in variables.items()}
    if not sizes:
        return None
    largest = max(sizes, key=sizes.__getitem__)
    if sizes[largest] > STRING_LIMIT_BYTES:
        counted = " with its name" if largest.startswith("executable.env") else ""
        return (
            f"{largest} has {sizes[largest]} bytes{counted}, and Linux allows {STRING_LIMIT_BYTES}; put it into a file"
        )
    total = sum(sizes.values()) + POINTER_BYTES * len(sizes) + RESERVED_BYTES
    if total > total_bytes:
        return (
            f"executable: {len(variables)} variables (env) and {len(command)} arguments (command) have {total} bytes "
            f"together, and the drone's machine allows {total_bytes} (a quarter of its stack limit); the "
            f"largest is {largest} with {sizes[largest]} bytes; put them into a file"
        )
    return None


def container_exec_hint(output: str) -> str | None:
    """Return advice for a container whose output says that its first program received too much; otherwise None."""
    if _TOO_LONG.search(output) is None:
        return None
    return (
        "executable.env and the variables of the image are together larger than a quarter of the container's stack "
        "limit; put them into a file"
    )


def _size(text: str) -> int:
    return len(text.encode(errors="surrogateescape")) + 1
