"""Can the processes that a drone runs order more of them? Asked once, by `plane.drone.server`, when a drone starts."""

from __future__ import annotations

from urllib.parse import urlsplit

from plane.protocol.addresses import is_loopback

__all__ = ["open_controller_warning"]


def open_controller_warning(controller_url: str, *, has_key: bool, runs_processes: bool) -> str | None:
    """Return what to tell the operator; None for a controller with API keys, or on another machine.

    Backends that are processes share the drone's network (`network: "shared"`), loopback included.
    """
    if has_key or not runs_processes or not is_loopback(urlsplit(controller_url).hostname or ""):
        return None
    return (
        "the controller on this machine has no API keys; backends that are processes can reach it, and so control "
        "the cluster; give it --api-key-file, and this drone a key of the role node"
    )
