"""Can a proxy on another machine reach the backends of a drone at this address? (A22 of page 7)

Asked once, by `plane.drone.server`, when a drone starts.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from plane.protocol.addresses import is_loopback

__all__ = ["address_warning"]


def address_warning(ip: str, controller_url: str) -> str | None:
    """What to tell the operator, or None: a loopback address is right only where all parts are on one machine."""
    if not is_loopback(ip) or is_loopback(urlsplit(controller_url).hostname or ""):
        return None
    return (
        f"proxies on other machines cannot reach this drone's backends at {ip}; give the address of this machine "
        "with --ip, unless every proxy runs here"
    )
