"""Is what a client sent one plain POST? Only such a request is served without a general HTTP server.

`plane.controller.connect_lane` asks. What is unusual in any way is not refused but left to the general server, so
everything here may be narrow: a header that is not known to mean nothing for the answer makes a request unusual.
Syntax: RFC 9112.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["HEAD_LIMIT_BYTES", "SimplePost", "read_simple_post"]

# Well below what the general server accepts, so that its limits need not be repeated here.
HEAD_LIMIT_BYTES = 4096

_FIELD = rb"([A-Za-z-]+): *([!-~][ !-~]*)\r\n"
_FIELDS = re.compile(_FIELD)
_HEAD = re.compile(rb"POST (/[a-z/-]+) HTTP/1\.1\r\n((?:" + _FIELD + rb")+)\r\n")

_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_JSON = re.compile(rb"(?i:application/json(?:; ?charset=utf-8)?)")
# No sign, no leading zero, below a million.
_LENGTH = re.compile(rb"[1-9][0-9]{0,5}")
_KEEP_ALIVE = re.compile(rb"(?i:keep-alive)")
_ANYTHING = re.compile(rb".+")

_NEEDED = (b"host", b"content-type", b"content-length")
# By lower-case name: what a field may say. The answer does not depend on those that may say anything, except on the
# credentials, which are handed on.
_ALLOWED = {
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


@dataclass(frozen=True, slots=True)
class SimplePost:
    """One request to be answered on a connection that stays open.

    Attributes:
        authorization: the header's value.
        body: empty if nothing of it has come yet; there is always one.
    """

    path: str
    authorization: str | None
    body: bytes


def read_simple_post(data: bytes) -> SimplePost | None:
    """The request, if ``data`` is its head, alone or with its JSON body, and nothing else; None if it is unusual."""
    head = _HEAD.match(data, 0, HEAD_LIMIT_BYTES)
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
    body, length = data[head.end() :], int(fields[b"content-length"])
    if body and len(body) != length:
        return None
    authorization = fields.get(b"authorization")
    return SimplePost(
        path=head[1].decode(),
        authorization=None if authorization is None else authorization.decode(),
        body=body,
    )
