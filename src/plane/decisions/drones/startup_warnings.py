"""Decide which warnings about its address and its controller a drone logs when it starts."""

from __future__ import annotations

from urllib.parse import urlsplit

from plane.protocol.addresses import is_loopback

__all__ = ["is_open_to_backends", "is_unreachable_address"]


def is_unreachable_address(ip: str, controller_url: str) -> bool:
    """Return whether proxies on other machines cannot reach backends at this address.

    A loopback address is correct only if all parts of the cluster are on one machine.
    """
    return is_loopback(ip) and not is_loopback(urlsplit(controller_url).hostname or "")


def is_open_to_backends(controller_url: str, *, has_key: bool, runs_processes: bool) -> bool:
    """Return whether the backends of a drone can control the cluster.

    Backends that are processes share the drone's network (`network: "shared"`), loopback included. A controller with
    API keys, or on another machine, is not open to them.
    """
    return runs_processes and not has_key and is_loopback(urlsplit(controller_url).hostname or "")
