"""What does a client request? Reads and checks the head of a request. A malformed head is refused with a status.

`plane.decisions.http.exchange` passes the heads. One expression finds the fields that are read or removed; the others
are never parsed. Clients mostly repeat their fields to the byte, on one connection and the next: then the result of the
last time is used again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from plane.decisions.http.grammar import (
    HOST,
    TOKEN,
    connection_options,
    fields_are_valid,
    has_only_allowed_bytes,
    line_ends_are_valid,
    parse_length,
    without_hop_by_hop_fields,
)
from plane.decisions.http.limits import DEFAULT_LIMITS, HttpLimits
from plane.decisions.http.protected_fields import PROTECTED_NAME
from plane.decisions.http.trusted_proxies import NO_CLAIMS, Claims
from plane.decisions.routing.host_names import HostNames
from plane.decisions.routing.referer import without_token
from plane.decisions.routing.token_cookie import COOKIE_MARKER, TokenCookie, extract_token_cookie
from plane.protocol.errors import PlaneError

__all__ = [
    "KNOWN_LIMIT",
    "KNOWN_LIMIT_BYTES",
    "REPEATABLE",
    "RequestFields",
    "RequestHead",
    "RequestReader",
    "RequestRefused",
    "could_become_request",
]

# A target has no '#', '<' or '>'. RFC 3986 allows none of them there, browsers escape them, and Plane 0.5.5 refuses
# '<' and '>'. A server that drops a fragment would serve another path than the one in x-verified-path. Other bytes that
# RFC 3986 excludes (quotes, braces, '|', '^', those beyond ASCII) come from real browsers, and nginx accepts them.
_REQUEST_LINE: Final = re.compile(rb"(" + TOKEN + rb") ([!-\"$-;=?-~\x80-\xff]+) HTTP/([0-9])\.([0-9])(?=\r\n|\Z)")
_METHOD: Final = re.compile(rb"(?:\r\n)?\r?\Z|" + TOKEN + rb"(?: |\Z)")
# The fields that are read or removed: framing, connection, and those that only this proxy may send. For a block in
# lower case: an expression that ignores case takes twice the time.
_NOTED: Final = re.compile(
    rb"\r\n(host|connection|content-length|transfer-encoding|upgrade|keep-alive|te|referer|"
    + PROTECTED_NAME
    + rb"):[ \t]*([^\r\n]*)"
)
# The fields of `Claims`. Proxies use no other spelling of these names.
_CLAIM: Final = re.compile(rb"\r\n(?i:x-forwarded-(for|proto|host)):[ \t]*([^\r\n]*)")
# How many blocks of fields are cached, and how large each may be: 5 MiB at most, whatever clients send.
KNOWN_LIMIT: Final = 1024
KNOWN_LIMIT_BYTES: Final = 2048
# Methods of requests that may be sent twice (RFC 9110, section 9.2.1), if they have no body.
REPEATABLE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
# In a tunnel of HTTP/2, requests would bypass every rule about header fields. RFC 9113 has deprecated this upgrade.
_HTTP_2: Final = re.compile(rb"(?i:(?:^|[, \t])h2c(?:$|[, \t]))")


class RequestRefused(PlaneError):
    """The request is refused with ``status``, and the connection must be closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True, frozen=True)
class RequestFields:
    """The fields of a request.

    Attributes:
        lines: the field lines to pass on, each begun by CR LF.
        authority: the value of `Host`.
        host: the same with the cluster's own name (`HostNames.canonical`).
        length: of the body; None for a chunked body.
        referer: the value of `Referer`, token included; empty without one.
        claims: what a proxy in front, or a client that acts as one, says about the client; see `trusted_proxies`.
    """

    lines: bytes
    host: bytes
    authority: bytes
    length: int | None
    keep_alive: bool
    upgrade: bytes | None
    referer: bytes
    token_cookie: TokenCookie | None
    claims: Claims


class RequestHead(msgspec.Struct):
    """A valid head. One is made for each request, in half the time of a dataclass."""

    method: bytes
    target: bytes
    http_1_0: bool
    fields: RequestFields


def could_become_request(part: bytes) -> bool:
    """Return whether the beginning of a request, without an empty line, can become a head.

    If not, there is no reason to wait for more: it is another protocol, such as TLS, or its lines end differently.
    """
    return _METHOD.match(part) is not None and line_ends_are_valid(part)


class RequestReader:
    """Reads the heads of all requests of a proxy.

    Args:
        names: those of the proxy. A `Referer` with one of them is passed on without its token.
        limits: the sizes of the parts of a head.
    """

    __slots__ = ("_known", "_limits", "_names")

    def __init__(self, names: HostNames, limits: HttpLimits = DEFAULT_LIMITS) -> None:
        self._names = names
        self._limits = limits
        # The key is the version's last digit and the fields after it.
        self._known: dict[bytes, RequestFields] = {}

    def read(self, head: bytes) -> RequestHead:
        """Read a head, without the empty line at its end.

        Raises:
            RequestRefused: 400, 414, 431, 501 or 505.
        """
        if len(head) > self._limits.head_bytes:
            raise RequestRefused(431, "head too large")
        line = _REQUEST_LINE.match(head)
        if line is None:
            raise RequestRefused(400, "malformed request line")
        method, target, major, minor = line.groups()
        if major != b"1":
            raise RequestRefused(505, "only HTTP/1 is supported")
        if len(target) > self._limits.target_bytes:
            raise RequestRefused(414, "request target too long")
        http_1_0 = minor == b"0"
        key = head[line.start(4) :]
        fields = self._known.get(key)
        if fields is None:
            fields = _read_fields(key[1:], http_1_0, self._names, self._limits)
            self._remember(key, fields)
        return RequestHead(method, target, http_1_0, fields)

    def _remember(self, key: bytes, fields: RequestFields) -> None:
        if len(key) <= KNOWN_LIMIT_BYTES:
            if len(self._known) >= KNOWN_LIMIT:
                # Those in use are soon cached again.
                self._known.clear()
            self._known[key] = fields


def _read_fields(block: bytes, http_1_0: bool, names: HostNames, limits: HttpLimits) -> RequestFields:
    """Read the field lines, each begun by CR LF."""
    if not has_only_allowed_bytes(block) or not fields_are_valid(block):
        raise RequestRefused(400, "malformed header field")
    if block.count(b"\r\n") > limits.fields:
        raise RequestRefused(431, "too many header fields")
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    connection = b""
    upgrade: bytes | None = None
    referer = b""
    has_token_cookie = COOKIE_MARKER in block
    kept: list[bytes] = []
    kept_from = 0
    for noted in _NOTED.finditer(block.lower()):
        name = noted[1]
        value = block[noted.start(2) : noted.end(2)].rstrip(b" \t")
        if name == b"host":
            hosts.append(value)
            continue
        if name == b"content-length":
            lengths.append(value)
            continue
        if name == b"transfer-encoding":
            codings.append(value)
            continue
        if name == b"connection":
            connection = connection + b"," + value if connection else value
        elif name == b"upgrade":
            upgrade = value
        # All others are for one hop only, or only this proxy may send them.
        kept.append(block[kept_from : noted.start()])
        if name == b"referer":
            referer = value
            kept.append(b"\r\nReferer: " + without_token(value, names, token_in_cookie=has_token_cookie))
        kept_from = noted.end()
    kept.append(block[kept_from:])
    options = connection_options(connection)
    lines = without_hop_by_hop_fields(b"".join(kept), options)
    lines, token_cookie = extract_token_cookie(lines) if has_token_cookie else (lines, None)
    if len(hosts) != 1 or not HOST.match(hosts[0]):
        raise RequestRefused(400, "exactly one well-formed Host is needed")
    if upgrade is not None and (http_1_0 or b"upgrade" not in options or _HTTP_2.search(upgrade)):
        # A server may ignore a request for an upgrade (RFC 9110, section 7.8).
        upgrade = None
    return RequestFields(
        lines=lines,
        host=names.canonical(hosts[0]),
        authority=hosts[0],
        length=_body_length(lengths, codings, http_1_0),
        keep_alive=(b"keep-alive" in options) if http_1_0 else (b"close" not in options),
        upgrade=upgrade,
        referer=referer,
        token_cookie=token_cookie,
        claims=_claims(block),
    )


def _claims(block: bytes) -> Claims:
    """Return the claims in field lines, each begun by CR LF. Several lines of one name count as one list."""
    values: dict[bytes, list[bytes]] = {b"for": [], b"proto": [], b"host": []}
    for name, value in _CLAIM.findall(block):
        values[name.lower()].append(value)
    return Claims(*(b",".join(lines) for lines in values.values())) if any(values.values()) else NO_CLAIMS


def _body_length(lengths: list[bytes], codings: list[bytes], http_1_0: bool) -> int | None:
    """Return the length of the body, None for a chunked one. There is one `chunked`, or one length, and nothing else.

    RFC 9112, section 6.3.
    """
    if codings:
        if lengths or http_1_0:
            raise RequestRefused(400, "Transfer-Encoding with Content-Length, or in HTTP/1.0")
        if len(codings) != 1:
            raise RequestRefused(400, "more than one Transfer-Encoding")
        if codings[0].lower() != b"chunked":
            raise RequestRefused(501, "no transfer coding except chunked is supported")
        return None
    if not lengths:
        return 0
    length = parse_length(lengths[0])
    if len(lengths) != 1 or length is None:
        raise RequestRefused(400, "malformed Content-Length")
    return length
