"""Moves the paths in a backend's response fields below the token: `Location`, and the `Path` of cookies.

Only for backends with `rewrite_prefix`, whose applications behave as if they were at `/`. Bodies are not rewritten.
Called by `plane.decisions.http.exchange` for each response of such a backend.
"""

from __future__ import annotations

import re
from typing import Final

from plane.decisions.routing.host_names import normal_host

__all__ = ["below_prefix"]

_FIELD: Final = re.compile(rb"\r\n(location|set-cookie):[ \t]*([^\r\n]*)", re.IGNORECASE)
_ABSOLUTE: Final = re.compile(rb"((https?):)?//([^/?#\\]*)", re.IGNORECASE)
_PATH_ATTRIBUTE: Final = re.compile(rb"(;[ \t]*path[ \t]*=[ \t]*)(/[^;]*)", re.IGNORECASE)
_DOT_SEGMENT: Final = re.compile(rb"/(?:\.|%2e){1,2}(?:/|\Z)", re.IGNORECASE)
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


def below_prefix(fields: bytes, prefix: bytes, authority: bytes) -> bytes:
    """Return field lines, each begun by CR LF, with their absolute paths below ``prefix`` (``/{token}``).

    Rewritten are path-absolute values and absolute URLs of the same host (``authority`` is the request's ``Host``).
    What is below ``prefix`` already stays as it is, as does a cookie whose name demands `Path=/` (``__Host-``).
    """

    def rewritten(field: re.Match[bytes]) -> bytes:
        start = field[0][: field.start(2) - field.start()]
        if field[1].lower() == b"location":
            return start + _location(field[2], prefix, authority)
        return start + _cookie(field[2], prefix)

    return _FIELD.sub(rewritten, fields)


def _location(value: bytes, prefix: bytes, authority: bytes) -> bytes:
    found = _ABSOLUTE.match(value)
    if found is None:
        return _path(value, prefix) if value.startswith(b"/") else value
    host = normal_host(found[3])
    port = _DEFAULT_PORTS.get((found[2] or b"").lower(), b"")
    if host != normal_host(authority) and host.removesuffix(port) != normal_host(authority).removesuffix(port):
        return value
    rest = value[found.end() :]
    return found[0] + _path(rest if rest.startswith((b"/", b"\\")) else b"/" + rest, prefix)


def _path(value: bytes, prefix: bytes) -> bytes:
    """Put ``/path?query#fragment`` below ``prefix``. Dot segments are resolved first: they must not lead out of it."""
    end = next((index for index, byte in enumerate(value) if byte in b"?#"), len(value))
    path = value[:end]
    if _DOT_SEGMENT.search(path):
        path = _without_dot_segments(path)
    if path == prefix or path.startswith(prefix + b"/"):
        return path + value[end:]
    return prefix + path + value[end:]


def _without_dot_segments(path: bytes) -> bytes:
    """Resolve `.` and `..`, also in their escaped form (RFC 3986, section 5.2.4; URL Standard, "path state")."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for index, segment in enumerate(segments):
        plain = segment.lower().replace(b"%2e", b".")
        if plain not in (b".", b".."):
            kept.append(segment)
            continue
        if plain == b".." and kept:
            kept.pop()
        if index == len(segments) - 1:
            kept.append(b"")
    return b"/" + b"/".join(kept)


def _cookie(value: bytes, prefix: bytes) -> bytes:
    if value[:7].lower() == b"__host-":
        return value

    def below(attribute: re.Match[bytes]) -> bytes:
        path = attribute[2].rstrip(b" \t")
        if path == prefix or path.startswith(prefix + b"/"):
            return attribute[0]
        # `/{token}` also matches everything below it (RFC 6265, section 5.1.4).
        return attribute[1] + prefix + (b"" if path == b"/" else path)

    pair, separator, attributes = value.partition(b";")
    return pair + _PATH_ATTRIBUTE.sub(below, separator + attributes)
