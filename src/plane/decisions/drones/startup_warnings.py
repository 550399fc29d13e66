"""Decide which warnings about its address and its controller a drone logs when it starts."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

__all__ = ["address_warning", "is_loopback", "open_controller_warning"]


def address_warning(ip: str, controller_url: str) -> str | None:
    """Return a warning if proxies on other machines cannot reach backends at this address; otherwise None.

    A loopback address is correct only if all parts of the cluster are on one machine.
    """
    if not is_loopback(ip) or is_loopback(urlsplit(controller_url).hostname or ""):
        return None
    return (
        f"proxies on other machines cannot reach this drone's backends at {ip}; give the address of this machine "
        "with --ip, unless every proxy runs here"
    )


def open_controller_warning(controller_url: str, *, has_key: bool, runs_processes: bool) -> str | None:
    """Return a warning if the backends of a drone can control the cluster; otherwise None.

    Backends that are processes share the drone's network (`network: "shared"`), loopback included. A controller with
    API keys, or on another machine, is not open to them.
    """
    if has_key or not runs_processes or not is_loopback(urlsplit(controller_url).hostname or ""):
        return None
    return (
        "the controller on this machine has no API keys; backends that are processes can reach it, and so control "
        "the cluster; give it --api-key-file, and this drone a key of the role node"
    )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine's loopback interface, by address or as ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
