"""Detect in the last output of a process that isolation, or its user, is why it failed. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["isolation_hint"]

# Phrases of libc, dash, Go, Java (jar files, NIO), Node, git and Perl. The tests have a message of each.
_ABSENT = re.compile(
    r"no such file|not found|enoent|cannot find|can't open|cannot open|can't cd to|unable to access|nosuchfile|"
    r"does not exist",
    re.IGNORECASE,
)
_READ_ONLY = re.compile(r"read-only file ?system|readonlyfilesystem|erofs", re.IGNORECASE)
_REFUSED = re.compile(r"permission denied|eacces|accessdenied", re.IGNORECASE)
_PATH = re.compile(r"/[^\s'\":,;()\[\]`‘’“”<>]+")
# Lines of an access log contain URL paths and "404 Not Found", which are not about files.
_REQUEST = re.compile(r" HTTP/[0-9]")


def isolation_hint(
    output: str, own: Sequence[str], masked: Sequence[str], home: str, *, drops_user: bool
) -> str | None:
    """Return advice for a backend that could not access a file; None if its output does not say so.

    Args:
        own: the private folders of an isolated backend, empty at its start; empty if it is not isolated.
        masked: folders of the machine that are replaced by an empty one.
        home: its private home, below one of ``own``. Files missing there were never created, not hidden.
        drops_user: whether it runs as another user than the drone.
    """
    hints = []
    if own and _READ_ONLY.search(output):
        hints.append(
            "isolation makes the machine's files read-only; write below $HOME or /tmp, which end with the backend, or "
            "into a mount (executable.mount), or use isolation none"
        )
    lines = [line for line in output.splitlines() if _ABSENT.search(line) and not _REQUEST.search(line)]
    paths = [path.rstrip(".") for line in lines for path in _PATH.findall(line)]
    hidden = next((path for path in paths if path in masked or _is_below(path, (*own, *masked), home)), None)
    if hidden is not None:
        hints.append(
            f"{hidden} may be one of the machine's files that isolation hides: each backend has its own "
            f"{', '.join(own)}; show a folder with the drone's --expose, or use isolation none"
        )
    if drops_user and _REFUSED.search(output):
        hints.append(
            "the user that backends run as may not read or write that file; see executable.user and the drone's "
            "--backend-user"
        )
    return "; ".join(hints) or None


def _is_below(path: str, folders: Sequence[str], home: str) -> bool:
    return not f"{path}/".startswith(f"{home}/") and any(path.startswith(f"{folder}/") for folder in folders)
