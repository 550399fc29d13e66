"""Where does a request lead, as far as can be decided without a controller? See `docs/reference/protocol/proxy.md`.

Called by `plane.proxy.data_plane.dispatch`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from plane.decisions.routing.host_names import normal_host
from plane.decisions.routing.rewrite import could_be_token, split_target

__all__ = ["RouteMatch", "https_location", "match_target"]


class RouteMatch(msgspec.Struct):
    """The request leads to the backend of ``token``, which gets ``forwarded`` as its target."""

    token: str
    forwarded: bytes


def match_target(
    target: bytes, host: bytes, cluster: bytes
) -> Literal["ready", "root"] | Literal[403, 410] | RouteMatch:
    """Return where ``target`` leads. A number is the status of the response. ``cluster`` as by `normal_host`."""
    if target == b"/ready":
        return "ready"
    if target == b"/" or target.startswith(b"/?"):
        return "root"
    if host != cluster and not _belongs_to(normal_host(host), cluster):
        return 403
    token, forwarded = split_target(target)
    return RouteMatch(token, forwarded) if could_be_token(token) else 410


def _belongs_to(host: bytes, cluster: bytes) -> bool:
    """Return whether a host is the cluster or a subdomain of it. The route decides which subdomain is right."""
    return host == cluster or host.endswith(b"." + cluster)


def https_location(target: bytes, host: bytes) -> str:
    """Return the same address with https, at its default port."""
    name = host if host.endswith(b"]") else host.rpartition(b":")[0] or host
    return f"https://{name.decode('latin-1')}{target.decode('latin-1')}"
