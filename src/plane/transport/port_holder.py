"""Finds the process that listens on a port, by /proc; for error messages."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

__all__ = ["listening_inodes", "port_holder"]

_LISTEN = "0A"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on


def port_holder(address: str, port: int) -> str | None:
    """Return name and id of the process that listens on the port.

    None for a process of another user, unless this process is root.
    """
    inodes = {inode for table in _TABLES for inode in listening_inodes(_lines(table), address, port)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # Names of processes may contain any bytes.
            if any(_inode(file) in inodes for file in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_bytes().decode(errors='replace').strip()} (process {process.name})"
        except OSError:
            continue
    return None


def listening_inodes(table: Iterable[str], address: str, port: int) -> set[str]:
    """Return the inodes of sockets that prevent others from listening on the address and port.

    Args:
        table: the lines of /proc/net/tcp or tcp6 (proc_net_tcp in the kernel's documentation).
    """
    return {
        fields[9]
        for line in table
        if len(fields := line.split()) > 9
        and fields[3] == _LISTEN
        and int(fields[1].rpartition(":")[2], 16) == port
        and _covers(fields[1].partition(":")[0], address)
    }


def _covers(written: str, address: str) -> bool:
    # Words of four bytes in the machine's byte order; all supported machines are little-endian.
    packed = b"".join(bytes.fromhex(written[at : at + 8])[::-1] for at in range(0, len(written), 8))
    theirs = ipaddress.ip_address(packed)
    if isinstance(theirs, ipaddress.IPv6Address) and theirs.ipv4_mapped is not None:
        theirs = theirs.ipv4_mapped
    # By default, a socket on all IPv6 addresses covers those of IPv4 too.
    return str(theirs) == address or theirs.is_unspecified or address in _ALL_ADDRESSES


def _lines(table: str) -> list[str]:
    try:
        return Path(table).read_text().splitlines()[1:]
    except OSError:  # no IPv6
        return []


def _inode(file: Path) -> str | None:
    target = str(file.readlink())
    return target.removeprefix("socket:[").removesuffix("]") if target.startswith("socket:[") else None
