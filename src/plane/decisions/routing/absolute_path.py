"""Did an application lead its browser out of its own path, or has the session ended?

An application that does not know that it is served below `/{token}/` links to `/lab` or `/@vite/client`. The first
segment of these paths takes the place of a token. Called by `plane.proxy.data_plane.lost_requests`
if that segment has no route.
"""

from __future__ import annotations

import re
from typing import Final

from plane.decisions.routing.host_names import normal_host

__all__ = ["is_issued_token", "referred_token"]

# Tokens that controllers issue: 32 random bytes in base64url, static ones behind a prefix.
_ISSUED: Final = re.compile(r"(?:s\.)?[A-Za-z0-9_-]{43}")
_REFERER: Final = re.compile(rb"https?://([^/?#]*)/([^/?#]+)", re.IGNORECASE)


def is_issued_token(segment: str) -> bool:
    """Return whether a path segment has the form of a token that a controller may have issued."""
    return _ISSUED.fullmatch(segment) is not None


def referred_token(referer: bytes, authority: bytes) -> str | None:
    """Return the first path segment of a ``Referer`` on the same host; None for another host or no path.

    ``authority`` is the request's ``Host``.
    """
    found = _REFERER.match(referer)
    if found is None or normal_host(found[1].rpartition(b"@")[2]) != normal_host(authority):
        return None
    return found[2].decode("latin-1")
