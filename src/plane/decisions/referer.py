"""What of a browser's `Referer` may a backend see? Not the token: whoever has it is the user.

A page below ``/{token}/`` names itself, token included, in every request that it makes. Asked by `request_head`.
"""

from __future__ import annotations

import re

__all__ = ["without_token"]

_OURS = re.compile(rb"(https?://([^/?#]*))?/[^/?#]*", re.IGNORECASE)


def without_token(value: bytes, cluster: bytes) -> bytes:
    """``https://{ours}/{token}/rest`` as ``https://{ours}/rest``; an address elsewhere as it is.

    ``cluster`` in lower case and without ":443".
    """
    found = _OURS.match(value)
    if found is None:
        return value
    if found[2] is not None:
        host = found[2].rpartition(b"@")[2].lower().removesuffix(b":443")
        if host != cluster and not host.endswith(b"." + cluster):
            return value
    rest = value[found.end() :]
    return (found[1] or b"") + (rest if rest.startswith(b"/") else b"/" + rest)
