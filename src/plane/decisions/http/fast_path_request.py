"""Is a request plain enough to be served without a general HTTP server?

Called by `plane.controller.api.connect_fast_path`. An unusual request is not refused but left to the general server, so
the rules here may be narrow. A header field that is not known to be without effect makes a request unusual. Syntax:
RFC 9112.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from plane.decisions.http.request_source import RequestSource

__all__ = ["HEAD_LIMIT_BYTES", "FastPathRequest", "read_fast_path_request"]

# Well below the limits of the general server, so that they need not be repeated here.
HEAD_LIMIT_BYTES: Final = 4096
# Clients repeat their heads to the byte, except for the length of the body.
REMEMBERED_HEADS: Final = 512

_FIELD: Final = rb"([A-Za-z-]+): *([!-~][ !-~]*)\r\n"
_FIELDS: Final = re.compile(_FIELD)
_HEAD: Final = re.compile(rb"POST (/[a-z/-]+) HTTP/1\.1\r\n((?:" + _FIELD + rb")+)\r\n")

_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_JSON: Final = re.compile(rb"(?i:application/json(?:; ?charset=utf-8)?)")
# No sign, no leading zero, below a million.
_LENGTH: Final = re.compile(rb"[1-9][0-9]{0,5}")
_KEEP_ALIVE: Final = re.compile(rb"(?i:keep-alive)")
_ANYTHING: Final = re.compile(rb".+")

_NEEDED: Final = (b"host", b"content-type", b"content-length")
# Allowed values by lower-case name. The response does not depend on fields that may have any value, except on the
# credentials, which are passed on.
_ALLOWED: Final = {
    b"host": _HOST,
    b"content-type": _JSON,
    b"content-length": _LENGTH,
    b"connection": _KEEP_ALIVE,
    b"authorization": _ANYTHING,
    b"accept": _ANYTHING,
    b"accept-encoding": _ANYTHING,
    b"accept-language": _ANYTHING,
    b"sec-fetch-mode": _ANYTHING,
    b"user-agent": _ANYTHING,
}


class FastPathRequest(NamedTuple):
    """One request on a connection that stays open.

    Attributes:
        source: its fields about its origin. A request that a web page may have caused is not on the fast path.
        authorization: the field's value.
        body: empty if nothing of it has arrived yet; there is always one.
    """

    path: str
    source: RequestSource
    authorization: str | None
    body: bytes

    def __repr__(self) -> str:
        return f"FastPathRequest(path={self.path!r}, {len(self.body)} bytes)"


def read_fast_path_request(data: bytes) -> FastPathRequest | None:
    """Return the request if ``data`` is its head, alone or with its complete body. None if it is unusual."""
    end = data.find(b"\r\n\r\n", 0, HEAD_LIMIT_BYTES)
    if end < 0:
        return None
    end += len(b"\r\n\r\n")
    head = _read_head(data[:end])
    if head is None:
        return None
    path, source, authorization, length = head
    body = data[end:]
    if body and len(body) != length:
        return None
    return FastPathRequest(path, source, authorization, body)


@lru_cache(maxsize=REMEMBERED_HEADS)
def _read_head(data: bytes) -> tuple[str, RequestSource, str | None, int] | None:
    """Return path, source, credentials, and length of the body; None if anything is unusual."""
    head = _HEAD.fullmatch(data)
    if head is None:
        return None
    fields: dict[bytes, bytes] = {}
    for name, value in _FIELDS.findall(head[2]):
        name, value = name.lower(), value.rstrip(b" ")
        allowed = _ALLOWED.get(name)
        if allowed is None or name in fields or not allowed.fullmatch(value):
            return None
        fields[name] = value
    if not all(name in fields for name in _NEEDED):
        return None
    authorization = fields.get(b"authorization")
    return (
        head[1].decode(),
        RequestSource(fields[b"host"].decode()),
        None if authorization is None else authorization.decode(),
        int(fields[b"content-length"]),
    )
