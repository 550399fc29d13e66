"""Find which process listens on a TCP port of this machine, to check that a backend itself responds there.

Blocks for a fraction of a millisecond if the listener is the backend's, longer otherwise; call it in a thread.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

__all__ = ["foreign_listener"]

LISTEN = 10  # TCP_LISTEN
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
NETLINK_SOCK_DIAG = 4
NLMSG_ERROR, NLMSG_DONE = 2, 3
NETLINK_TIMEOUT_S = 1.0
RECEIVE_BYTES = 64 * 1024
# struct nlmsghdr: length, type, flags, sequence, port id.
_HEADER = struct.Struct("=IHHII")
# SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0.
_DUMP = (20, 0x301, 0, 0)
# nlmsghdr, then struct inet_diag_req_v2: family, protocol, extensions, padding, states; only the port of the id.
_REQUEST = struct.Struct("=IHHIIBBBBI2s46x")
# After the header, in struct inet_diag_msg: four bytes, the socket's id, four numbers, then the inode.
INODE_AT = _HEADER.size + 4 + 48 + 16


def foreign_listener(port: int, own: Sequence[int], is_own: Callable[[int], bool]) -> str | None:
    """Return a description of a foreign process that listens on a backend's port; None if there is none.

    Args:
        own: the known processes of the backend.
        is_own: returns whether a process that is not among them belongs to the backend.
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
        # Most likely a process of the backend that runs as another user, whose sockets are not visible to this one.
        return None
    return "a process of another user or container"


def _listening(port: int) -> set[int]:
    """Return the inodes of the sockets that listen on the port, on any address."""
    try:
        return {inode for family in (socket.AF_INET, socket.AF_INET6) for inode in _diagnosed(family, port)}
    except OSError:
        # The kernel does not have the module inet_diag.
        return _listed(port)


def _diagnosed(family: int, port: int) -> Iterator[int]:
    """Query the kernel for listening sockets (sock_diag(7)). Takes 0.1 ms, however many connections there are."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(NETLINK_TIMEOUT_S)
        kernel.sendto(
            _REQUEST.pack(_REQUEST.size, *_DUMP, family, socket.IPPROTO_TCP, 0, 0, 1 << LISTEN, port.to_bytes(2)),
            (0, 0),
        )
        while True:
            data = kernel.recv(RECEIVE_BYTES)
            while data:
                length, kind = _HEADER.unpack_from(data)[:2]
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    raise OSError("sock_diag is not supported")
                yield int.from_bytes(data[INODE_AT : INODE_AT + 4], sys.byteorder)
                data = data[(length + 3) & ~3 :]


def _listed(port: int) -> set[int]:
    """Read the tables of all sockets. Takes milliseconds per thousand sockets."""
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
                if columns[1].endswith(suffix) and columns[3] == b"%02X" % LISTEN:
                    found.add(int(columns[9]))
    return found


def _sockets_of(pid: int) -> set[int] | None:
    """Return the inodes of a process's sockets; None if they are not visible to this user."""
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
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "ended"
