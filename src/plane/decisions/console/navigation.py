"""Is a request to the console a person who follows a link, and where does a sign-in lead?

A link in a chat or a wiki opens the console from another site. Browsers send the session's cookie (``SameSite=Strict``)
only with requests of the console's own pages, so the response is a page that opens the same address again.
Everything else of another origin is refused by `plane.decisions.http.request_source`.
"""

from __future__ import annotations

import ipaddress
import re

from plane.decisions.http.request_source import FOREIGN_SITES

__all__ = ["SIGN_IN", "is_link_from_elsewhere", "is_own_machine", "is_secure_origin", "target_after_sign_in"]

SIGN_IN = "/console/sign-in"

# A path below /console with a query: no scheme, no host, no backslash, nothing that ends a header.
_OWN_PATH = re.compile(r"/console(?:/[A-Za-z0-9._~%:@!$'()*+,;=-]*)*(?:\?[A-Za-z0-9._~%:@!$'()*+,;=/?&-]*)?")


def is_link_from_elsewhere(method: str, fetch_site: str | None, fetch_mode: str | None, fetch_dest: str | None) -> bool:
    """Return whether a page of another origin led a person here: a GET for a whole page, in a tab of its own."""
    return method == "GET" and fetch_site in FOREIGN_SITES and fetch_mode == "navigate" and fetch_dest == "document"


def target_after_sign_in(wanted: str) -> str:
    """Return the page that was requested before the sign-in; the first page if it is not a page of the console."""
    return wanted if _OWN_PATH.fullmatch(wanted) and not wanted.startswith(SIGN_IN) else "/console"


def is_own_machine(address: str | None) -> bool:
    """Return whether the address of a connection's other end is this machine's loopback interface."""
    try:
        peer = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
        peer = peer.ipv4_mapped
    return peer.is_loopback


def is_secure_origin(origin: str | None) -> bool:
    """Return whether the browser's own connection uses TLS, which a load balancer may terminate."""
    return origin is not None and origin.lower().startswith("https://")
