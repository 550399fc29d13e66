"""What does the last output of a process say about isolation, or about its user? Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["isolation_hint"]

_ABSENT = re.compile(r"no such file|not found|enoent|cannot find|can't open", re.IGNORECASE)
_READ_ONLY = re.compile(r"read-only file system|erofs", re.IGNORECASE)
_REFUSED = re.compile(r"permission denied|eacces", re.IGNORECASE)
_PATH = re.compile(r"/[^\s'\":,;()\[\]]+")


def isolation_hint(output: str, own: Sequence[str], masked: Sequence[str], *, drops_user: bool) -> str | None:
    """Return advice for a backend that could not reach a file; None: its output does not look like it.

    Args:
        own: folders that each isolated backend has of its own, empty; none: it is not isolated.
        masked: folders of the machine that an empty one replaces.
        drops_user: it has another user than the drone.
    """
    hints = []
    if own and _READ_ONLY.search(output):
        hints.append(
            "isolation makes the machine's files read-only; write below $HOME or /tmp, which end with the backend, or "
            "into a mount (executable.mount)"
        )
    lines = [line for line in output.splitlines() if _ABSENT.search(line)]
    paths = [path for line in lines for path in _PATH.findall(line)]
    hidden = next((path for path in paths if any(path.startswith(f"{folder}/") for folder in (*own, *masked))), None)
    if hidden is not None:
        hints.append(
            f"{hidden} may be one of the machine's files that isolation hides: each backend has {', '.join(own)} of "
            "its own; show a folder with the drone's --expose, or use isolation none"
        )
    if drops_user and _REFUSED.search(output):
        hints.append(
            "the user that backends run as may not read or write that file; see executable.user and the drone's "
            "--backend-user"
        )
    return "; ".join(hints) or None
