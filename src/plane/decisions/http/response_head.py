"""What does a backend respond? Reads and checks the head of a response, and writes the one for the client.

A response that is not HTTP becomes a 502. `response_reader` passes the heads. The rules for header fields are in
`docs/reference/protocol/proxy.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from plane.decisions.http.grammar import (
    connection_options,
    fields_are_valid,
    has_only_allowed_bytes,
    line_ends_are_valid,
    parse_length,
    without_hop_by_hop_fields,
)
from plane.decisions.http.shared_origin import DROPPED_FIELDS
from plane.decisions.http.upstream_keepalive import announced_timeout_s, repeatable_reuse_s, unrepeatable_reuse_s
from plane.protocol.errors import PlaneError

__all__ = [
    "CORS_FIELDS",
    "UNTIL_CLOSE",
    "InvalidResponse",
    "ResponseHead",
    "could_become_head",
    "read_response_head",
    "without_chunked_framing",
]

UNTIL_CLOSE: Final = -1

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n]*)?(?=\r\n|\Z)")
# The fields that are read or removed, for a head in lower case (see `request_head`).
_NOTED: Final = re.compile(
    rb"\r\n(content-length|transfer-encoding|connection|upgrade|keep-alive|proxy-(?:connection|authenticate)"
    rb"|server|x-plane-backend-id|access-control-allow-(?:origin|methods|headers)|referrer-policy|"
    + b"|".join(sorted(DROPPED_FIELDS))
    + rb"):[ \t]*([^\r\n]*)"
)
_BEGINNING: Final = b"HTTP/1."
# The fields about chunks and their trailers.
_CHUNKED_FIELDS: Final = re.compile(rb"\r\n(?i:transfer-encoding|trailer):[^\r\n]*")
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))
_CORS: Final = frozenset(
    (b"access-control-allow-origin", b"access-control-allow-methods", b"access-control-allow-headers")
)
CORS_FIELDS: Final = (
    b"\r\nAccess-Control-Allow-Origin: *"
    b"\r\nAccess-Control-Allow-Methods: *"
    b"\r\nAccess-Control-Allow-Headers: *, Authorization"
)
# The address of a page has its token. Only the cluster's own hosts may get it, and the proxy removes it there
# (`plane.decisions.routing.referer`).
_REFERRER_POLICY: Final = b"\r\nReferrer-Policy: same-origin"


class InvalidResponse(PlaneError):
    """The backend's response is not HTTP that may be passed on."""


@dataclass(slots=True)
class ResponseHead:
    """A valid head.

    Attributes:
        fields: the field lines to pass on, each begun by CR LF. The proxy's defaults are among them, except in an
            interim response.
        length: of the body, in bytes. None for a chunked body, `UNTIL_CLOSE` for one that ends with the connection.
        announces_absent_body: by rule the response has no body, but its fields describe one. A backend that breaks the
            rule, such as one that serves HEAD like GET, may still send it.
        reuse_s, unrepeatable_reuse_s: for how long the connection may be used again (`upstream_keepalive`).
    """

    status: int
    status_line: bytes
    fields: bytes
    length: int | None
    announces_absent_body: bool
    keep_alive: bool
    upgrade: bytes | None
    reuse_s: float
    unrepeatable_reuse_s: float


def could_become_head(part: bytes) -> bool:
    """Return whether a part of a response, without an empty line, can become a head.

    If not, there is no reason to wait for more: it is another protocol, or its lines end differently.
    """
    return part[: len(_BEGINNING)] == _BEGINNING[: len(part)] and line_ends_are_valid(part)


def without_chunked_framing(fields: bytes) -> bytes:
    """Return field lines, each begun by CR LF, for a client of HTTP/1.0, which has no chunks.

    RFC 9112, section 6.1.
    """
    return _CHUNKED_FIELDS.sub(b"", fields)


def read_response_head(head: bytes, *, to_head_request: bool, shares_origin: bool = True) -> ResponseHead:
    """Read a head, without the empty line at its end.

    ``shares_origin``: the backend has no subdomain; see `shared_origin`.

    Raises:
        InvalidResponse
    """
    line = _STATUS_LINE.match(head)
    if line is None or not has_only_allowed_bytes(head) or not fields_are_valid(head[line.end() :]):
        raise InvalidResponse("malformed head")
    status = int(line[2])
    http_1_0 = line[1] == b"0"
    # RFC 9110, section 8.6, and RFC 9112, section 6.1: such a response has no body and no framing fields. A client that
    # obeyed them would take the beginning of the next response for the body of this one.
    without_framing = status < 200 or status == 204
    lengths: list[bytes] = []
    codings: list[bytes] = []
    connection = b""
    upgrade: bytes | None = None
    keep_alive_field = b""
    seen: set[bytes] = set()
    kept: list[bytes] = []
    kept_from = line.end()
    for noted in _NOTED.finditer(head.lower(), line.end()):
        name = noted[1]
        value = head[noted.start(2) : noted.end(2)].rstrip(b" \t")
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
        elif name == b"connection":
            connection = connection + b"," + value if connection else value
        elif name == b"upgrade":
            upgrade = value
        elif name == b"keep-alive":
            keep_alive_field = keep_alive_field + b"," + value if keep_alive_field else value
        seen.add(name)
        if _is_dropped(name, without_framing=without_framing, shares_origin=shares_origin):
            kept.append(head[kept_from : noted.start()])
            kept_from = noted.end()
    kept.append(head[kept_from:])
    options = connection_options(connection)
    fields = without_hop_by_hop_fields(b"".join(kept), options)
    if (status >= 200 or status == 101) and seen.isdisjoint(_CORS):
        fields += CORS_FIELDS
    if status >= 200 and b"referrer-policy" not in seen:
        fields += _REFERRER_POLICY
    announced = _announced_length(lengths, codings, http_1_0)
    announced_s = announced_timeout_s(keep_alive_field)
    has_body = status >= 200 and status not in (204, 304) and not to_head_request
    return ResponseHead(
        status=status,
        status_line=b"HTTP/1.1" + line[0][8:],
        fields=fields,
        length=announced if has_body else 0,
        announces_absent_body=not has_body
        and (announced not in (0, UNTIL_CLOSE) or (to_head_request and announced == UNTIL_CLOSE)),
        keep_alive=(b"keep-alive" in options) if http_1_0 else (b"close" not in options),
        upgrade=upgrade,
        reuse_s=repeatable_reuse_s(announced_s),
        unrepeatable_reuse_s=unrepeatable_reuse_s(announced_s),
    )


def _is_dropped(name: bytes, *, without_framing: bool, shares_origin: bool) -> bool:
    """Return whether a field that `_NOTED` has found is not passed on."""
    if name in _FRAMING:
        return without_framing
    if name in DROPPED_FIELDS:
        return shares_origin
    # The others are for one hop only, or the proxy sends its own.
    return name not in _CORS and name != b"referrer-policy"


def _announced_length(lengths: list[bytes], codings: list[bytes], http_1_0: bool) -> int | None:
    """Return the length of a body, as `ResponseHead.length`, if there is a body (RFC 9112, section 6.3)."""
    if codings and (lengths or http_1_0 or codings != [b"chunked"]):
        raise InvalidResponse("ambiguous framing")
    length = parse_length(lengths[0]) if lengths else UNTIL_CLOSE
    if length is None or len(lengths) > 1:
        raise InvalidResponse("malformed Content-Length")
    return None if codings else length
