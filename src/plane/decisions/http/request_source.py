"""Did a web page of another origin cause a request to the control API? Decided by Host, Origin and Fetch metadata.

Called by `plane.controller.api.auth` and `plane.controller.api.connect_fast_path` for all requests but ``/pub``. A
browser sends requests to loopback and private addresses on behalf of any page. Two kinds of them are refused:

- requests with an ``Origin`` that is not the API's own (Fetch, section 3.2; browsers send one with every POST and every
  WebSocket), or with ``Sec-Fetch-Site: cross-site`` or ``same-site`` (W3C, Fetch Metadata);
- where nothing else authenticates the caller, requests for an unknown ``Host``. DNS rebinding makes the page and the
  API one origin to the browser, but under the page's name.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

__all__ = ["FOREIGN_SITES", "RequestSource", "SourceRules", "host_name", "is_known_host", "refusal"]

_AUTHORITY: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:/?#@\[\]]+))(?::([0-9]{0,5}))?")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
# Values of Sec-Fetch-Site by which another origin caused the request. "none" means that the user typed the address.
FOREIGN_SITES: Final = frozenset({"cross-site", "same-site"})


class RequestSource(NamedTuple):
    """The fields of a request about its origin: the values of all fields of each name, joined by commas.

    None: there is no such field. Clients that are not browsers send ``Host`` alone.
    """

    host: str | None
    origin: str | None = None
    fetch_site: str | None = None


@dataclass(frozen=True, slots=True)
class SourceRules:
    """The rules of one controller.

    Attributes:
        public_url: ``--controller-url``, if it is given.
        allowed_hosts: further names by which clients reach it (``--allowed-host``).
        checks_host: neither API keys nor forward auth authenticate the caller.
    """

    public_url: str | None = None
    allowed_hosts: frozenset[str] = field(default_factory=frozenset)
    checks_host: bool = True


# Clients repeat their headers, so there are few different values.
@lru_cache(maxsize=1024)
def refusal(source: RequestSource, rules: SourceRules, *, page: bool = False) -> str | None:
    """Return why a request is refused, and what to do; None for a request that no foreign page has caused.

    Args:
        page: the endpoint serves the API's own page and has no other protection, so the host is always checked.
    """
    if source.fetch_site is not None and source.fetch_site.strip().lower() in FOREIGN_SITES:
        return f"a web page of another origin sent this request (Sec-Fetch-Site: {source.fetch_site[:20]}); {_INSTEAD}"
    if source.origin is not None and not _is_own(source.origin, source.host, rules.public_url):
        return f"a web page of another origin sent this request (Origin: {source.origin[:80]}); {_INSTEAD}"
    if (rules.checks_host or page) and source.host is not None and not is_known_host(source.host, rules):
        return (
            f"the request is for the host {source.host[:80]!r}, which is not a known name of this controller; use "
            "its IP address, or start it with --allowed-host NAME or --controller-url URL"
        )
    return None


_INSTEAD: Final = "the control API serves programs and its own pages only: call it from a server"


def is_known_host(host: str, rules: SourceRules) -> bool:
    """Return whether a ``Host`` is an IP address, ``localhost``, that of the controller's URL, or an allowed one."""
    name = host_name(host)
    if name is None:
        return False
    if name == "localhost" or name in rules.allowed_hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return rules.public_url is not None and name == host_name(_authority(rules.public_url)[1])
    return True


def host_name(host: str) -> str | None:
    """Return the name or address in ``HOST[:PORT]``, in lower case, without brackets; None if malformed."""
    found = _AUTHORITY.fullmatch(host.strip().lower())
    return None if found is None else found[1] or found[2].rstrip(".") or None


def _is_own(origin: str, host: str | None, public_url: str | None) -> bool:
    """Return whether an origin is that of the request's host or of the controller's URL."""
    scheme, authority = _authority(origin)
    own = _with_port(scheme, authority)
    # Browsers send an origin without a path. Anything longer is not an origin, or is several.
    if scheme not in _DEFAULT_PORTS or own is None or origin.lower() != f"{scheme}://{authority.lower()}":
        return False
    # A load balancer may terminate TLS, so that only the browser knows the scheme.
    if host is not None and own == _with_port(scheme, host):
        return True
    return public_url is not None and (scheme, own) == _of_url(public_url)


def _of_url(url: str) -> tuple[str, tuple[str, str] | None]:
    scheme, authority = _authority(url)
    return scheme, _with_port(scheme, authority)


def _authority(url: str) -> tuple[str, str]:
    """Return scheme and ``HOST[:PORT]`` of a URL, both empty if it is malformed."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme.lower(), parts.netloc.rpartition("@")[2]


def _with_port(scheme: str, authority: str) -> tuple[str, str] | None:
    name = host_name(authority)
    found = _AUTHORITY.fullmatch(authority.strip().lower())
    if name is None or found is None:
        return None
    return name, found[3] or _DEFAULT_PORTS.get(scheme, "")
