"""Which part of a browser's `Referer` may a backend see? Not the token, which gives access to the session.

A page below ``/{token}/`` sends its own address, token included, with every request. Where the token is in a cookie,
the first segment belongs to the application, and stays. Called by `plane.decisions.http.request_head`.
"""

from __future__ import annotations

import re
from typing import Final

from plane.decisions.routing.absolute_path import is_issued_token
from plane.decisions.routing.host_names import HostNames

__all__ = ["without_token"]

_OURS: Final = re.compile(rb"(https?://([^/?#]*))?/([^/?#]*)", re.IGNORECASE)


def without_token(value: bytes, names: HostNames, *, token_in_cookie: bool = False) -> bytes:
    """Return ``https://{ours}/{token}/rest`` as ``https://{ours}/rest``, and an address of another host unchanged.

    ``token_in_cookie``: only a first segment that has the form of a token is removed.
    """
    found = _OURS.match(value)
    if found is None:
        return value
    if found[2] is not None and not names.include(found[2].rpartition(b"@")[2]):
        return value
    if token_in_cookie and not is_issued_token(found[3].decode("latin-1")):
        return value
    rest = value[found.end() :]
    return (found[1] or b"") + (rest if rest.startswith(b"/") else b"/" + rest)
