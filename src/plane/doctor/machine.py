"""Checks of this machine: files, disk, isolation, control groups, the Docker engine, ports."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
from pathlib import Path

import aiohttp

from plane.decisions.diagnosis import (
    Finding,
    Status,
    disk_finding,
    isolation_finding,
    open_files_finding,
    passed,
)
from plane.os_errors import error_reason
from plane.runtime.process.bubblewrap import BWRAP, bubblewrap_works
from plane.runtime.process.cgroups import Cgroups
from plane.transport.port_errors import port_error_reason

__all__ = ["control_groups", "disk", "docker_engine", "isolation", "local_addresses", "open_files", "port"]


# Another program may accept connections and never respond.
PROBE_TIMEOUT_S = 2.0
# A busy engine takes seconds, one that hangs never responds.
ENGINE_TIMEOUT_S = 10.0


async def open_files() -> Finding:
    """Check the limit of open files."""
    return open_files_finding(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


async def disk(folder: Path) -> Finding:
    """Check that files can be written in ``folder``, or in the nearest folder above it that exists."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        return Finding(Status.FAILED, f"{existing} is not a folder", "choose another path")
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            Status.FAILED, f"{existing} cannot be written", f"give this user the right to write to {existing}"
        )
    return disk_finding(str(existing), shutil.disk_usage(existing).free)


async def isolation() -> Finding:
    """Check that processes can be isolated."""
    installed = shutil.which(BWRAP) is not None
    return isolation_finding(has_bubblewrap=installed, works=installed and await bubblewrap_works())


async def control_groups() -> Finding:
    """Check that control groups can be made."""
    if Cgroups.detect() is not None:
        return passed("control groups can be made")
    return Finding(
        Status.WARNING,
        "control groups cannot be made",
        "run the drone as root, or with Delegate=yes in its systemd unit; without them, limits of CPU and memory are "
        "refused for processes",
    )


async def docker_engine(path: Path, *, required: bool) -> Finding:
    """Check that a Docker engine responds on the Unix socket ``path``."""
    status = Status.FAILED if required else Status.WARNING
    if not path.exists():
        advice = "start the engine, or name its socket with --docker-socket"
        return (
            Finding(status, f"{path} does not exist", advice)
            if required
            else Finding(Status.SKIPPED, f"no engine at {path}")
        )
    try:
        async with (
            asyncio.timeout(ENGINE_TIMEOUT_S),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http,
            http.get("http://engine/version") as response,
        ):
            version = (await response.json())["Version"]
    except PermissionError:
        return Finding(status, f"{path} cannot be opened", "run as root, or add this user to the group docker")
    except TimeoutError:
        found = f"the engine at {path} has not responded within {ENGINE_TIMEOUT_S:g} s"
        return Finding(status, found, "restart it: systemctl restart docker")
    except (aiohttp.ClientError, OSError, ValueError, KeyError) as error:
        return Finding(
            status, f"the engine at {path} does not respond: {error_reason(error)}", "start it: systemctl start docker"
        )
    return passed(f"Docker {version}")


async def port(host: str, number: int, option: str, probe_url: str | None = None) -> Finding:
    """Check that a port is free, or that a part of Plane listens on it.

    Args:
        option: chooses another port.
        probe_url: responds with any status if this part of Plane runs already.
    """
    if number == 0:
        return passed("any free port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, number))
        except OSError as error:
            if probe_url is not None and await _is_plane(probe_url):
                return passed(f"port {number} is served by this part already")
            return Finding(
                Status.FAILED,
                port_error_reason(error, host, number),
                f"end that program, or choose another with {option}",
            )
    return passed(f"port {number} on {host} is free")


async def _is_plane(url: str) -> bool:
    timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url, allow_redirects=False) as response:
            if response.headers.get("Server", "").startswith("Plane/"):
                return True
            return '"status"' in await response.text()
    except (aiohttp.ClientError, OSError, UnicodeDecodeError):
        # Another program; a TimeoutError is an OSError.
        return False


def local_addresses() -> set[str]:
    """Return the addresses of this machine's interfaces."""
    found = {"127.0.0.1", "::1"}
    # /proc/net/fib_trie lists local IPv4 addresses, /proc/net/if_inet6 those of IPv6.
    last = ""
    for line in Path("/proc/net/fib_trie").read_text().splitlines():
        words = line.split()
        if words[:1] in (["|--"], ["+--"]):
            last = words[1].partition("/")[0]
        elif words[:2] == ["/32", "host"] and words[2:3] == ["LOCAL"]:
            found.add(last)
    inet6 = Path("/proc/net/if_inet6")
    if inet6.exists():
        for line in inet6.read_text().splitlines():
            found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])))
    return found
