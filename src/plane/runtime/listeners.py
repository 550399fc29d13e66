"""Who listens on a TCP port of this machine? Read from /proc, for the check that a backend answers for itself.

Blocks for about a millisecond per thousand connections of the machine; call it in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

__all__ = ["foreign_listener"]

# State 0A in /proc/net/tcp.
LISTEN = b"0A"
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def foreign_listener(port: int, own: Sequence[int], is_own: Callable[[int], bool]) -> str | None:
    """Return which process other than a backend's own listens on a port, in words; None if there is none.

    Args:
        own: the backend's processes, as far as they are known.
        is_own: whether a process that is not among them is the backend's all the same.
    """
    sockets = _listening(port)
    unreadable = False
    for pid in own:
        held = _sockets_of(pid)
        unreadable = unreadable or held is None
        sockets -= held or set()
    if not sockets:
        return None
    for pid in _pids():
        held = _sockets_of(pid)
        if held is None or sockets.isdisjoint(held):
            continue
        if not is_own(pid):
            return f"process {pid} ({_name(pid)})"
        sockets -= held
    if not sockets or unreadable:
        # Another user's process of the backend's own, whose sockets this user may not see, is the likely one.
        return None
    return "a process of another user or container"


def _listening(port: int) -> set[int]:
    """The inodes of the sockets that listen on the port, on any address."""
    found = set()
    suffix = b":%04X" % port
    for table in TABLES:
        try:
            rows = Path(table).read_bytes().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            # sl, local address, remote address, state, …, and the inode in column 9; see proc(5).
            if suffix in row:
                columns = row.split()
                if columns[1].endswith(suffix) and columns[3] == LISTEN:
                    found.add(int(columns[9]))
    return found


def _sockets_of(pid: int) -> set[int] | None:
    """The inodes of a process's sockets; None if they may not be seen."""
    folder = f"/proc/{pid}/fd"
    found = set()
    try:
        names: Iterable[str] = os.listdir(folder)  # noqa: PTH208 - names, not paths
    except PermissionError:
        return None
    except OSError:
        return set()
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - as often as there are descriptors
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - as above


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"
