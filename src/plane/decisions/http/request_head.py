"""What does a client ask for? Reads and checks the head of a request; what is wrong is refused with a status.

`plane.proxy.data_plane.client_connection` feeds it. The head is looked at once: one expression finds the fields that
matter or must go, the others are never touched. Clients mostly repeat their fields to the byte, on one connection and
on the next; then what was found in them is used again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from plane.decisions.http.grammar import (
    HOST,
    TOKEN,
    connection_options,
    fields_are_valid,
    line_ends_are_valid,
    only_allowed_bytes,
    parse_length,
    without_named,
)
from plane.decisions.http.limits import DEFAULT_LIMITS, HttpLimits
from plane.decisions.http.protected_fields import PROTECTED_NAME
from plane.decisions.http.trusted_proxies import NO_CLAIMS, Claims
from plane.decisions.routing.host_names import HostNames
from plane.decisions.routing.referer import without_token
from plane.decisions.routing.token_cookie import COOKIE_MARKER, TokenCookie, take_token_cookie
from plane.protocol.errors import PlaneError

__all__ = [
    "KNOWN_LIMIT",
    "KNOWN_LIMIT_BYTES",
    "REPEATABLE",
    "Refused",
    "RequestFields",
    "RequestHead",
    "RequestReader",
    "could_become_request",
]

# A target has no '#', '<' or '>'. RFC 3986 allows none of them there, browsers escape them, and the original refuses
# '<' and '>'. A server that drops a fragment would serve another path than the one in x-verified-path. Other bytes that
# RFC 3986 excludes (quotes, braces, '|', '^', those beyond ASCII) come from real browsers, and nginx takes them too.
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-\"$-;=?-~\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_METHOD = re.compile(rb"(?:\r\n)?\r?\Z|" + TOKEN + rb"(?: |\Z)")
# The fields that matter here: framing, connection, and those that only this proxy may send. For a block in lower case:
# an expression that ignores case tries its alternatives in twice the time.
_NOTED = re.compile(
    rb"\r\n(host|connection|content-length|transfer-encoding|upgrade|keep-alive|te|referer|"
    + PROTECTED_NAME
    + rb"):[ \t]*([^\r\n]*)"
)
# What `Claims` has, by these names alone: proxies use no other spelling.
_CLAIM = re.compile(rb"\r\n(?i:x-forwarded-(for|proto|host)):[ \t]*([^\r\n]*)")
# How many blocks of fields are remembered, and how large each may be: 5 MiB at most, whatever clients send.
KNOWN_LIMIT = 1024
KNOWN_LIMIT_BYTES = 2048
# Methods of requests that may be sent twice (RFC 9110, section 9.2.1), if they have no body.
REPEATABLE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
# A tunnel of HTTP/2 would carry requests past every rule about headers (A12); RFC 9113 has given it up.
_HTTP_2 = re.compile(rb"(?i:(?:^|[, \t])h2c(?:$|[, \t]))")


class Refused(PlaneError):
    """The request is refused with ``status``; the connection must be closed."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True, frozen=True)
class RequestFields:
    """What the field lines say. ``lines`` are those to pass on, each begun by CR LF.

    ``authority`` is `Host` as it came, ``host`` the same by the cluster's own name (`HostNames.canonical`).
    ``length`` is the body's, None for a chunked body. ``referer`` is as it came, token included; empty without one.
    ``claims`` is what a proxy in front, or a client that acts as one, says of the client; see `trusted_proxies`.
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


@dataclass(slots=True)
class RequestHead:
    """A checked head."""

    method: bytes
    target: bytes
    http_1_0: bool
    fields: RequestFields


def could_become_request(part: bytes) -> bool:
    """Return whether the beginning of a request without an empty line can be that of a head.

    What cannot is no reason to wait for more: another protocol, such as TLS, or lines that end otherwise.
    """
    return _METHOD.match(part) is not None and line_ends_are_valid(part)


class RequestReader:
    """Reads the heads of all requests of a proxy.

    Args:
        names: those of the proxy; a `Referer` to them is shown without its token.
        limits: what may be how large.
    """

    __slots__ = ("_known", "_limits", "_names")

    def __init__(self, names: HostNames, limits: HttpLimits = DEFAULT_LIMITS) -> None:
        self._names = names
        self._limits = limits
        # By the version's last digit and the fields after it.
        self._known: dict[bytes, RequestFields] = {}

    def read(self, head: bytes) -> RequestHead:
        """Read a head, without the empty line at its end.

        Raises:
            Refused: 400, 414, 431, 501 or 505.
        """
        if len(head) > self._limits.head_bytes:
            raise Refused(431, "head too large")
        line = _REQUEST_LINE.match(head)
        if line is None or not (head.startswith(b"\r\n", line.end()) or line.end() == len(head)):
            raise Refused(400, "malformed request line")
        method, target, major, minor = line.groups()
        if major != b"1":
            raise Refused(505, "only HTTP/1 is spoken")
        if len(target) > self._limits.target_bytes:
            raise Refused(414, "request target too long")
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
                # Those that still come are soon there again.
                self._known.clear()
            self._known[key] = fields


def _read_fields(block: bytes, http_1_0: bool, names: HostNames, limits: HttpLimits) -> RequestFields:
    """Read the field lines, each begun by CR LF."""
    if not only_allowed_bytes(block) or not fields_are_valid(block):
        raise Refused(400, "malformed header field")
    if block.count(b"\r\n") > limits.fields:
        raise Refused(431, "too many header fields")
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
        # All others are for one hop only, or only this proxy may say them.
        kept.append(block[kept_from : noted.start()])
        if name == b"referer":
            referer = value
            kept.append(b"\r\nReferer: " + without_token(value, names, token_in_cookie=has_token_cookie))
        kept_from = noted.end()
    kept.append(block[kept_from:])
    options = connection_options(connection)
    lines = without_named(b"".join(kept), options)
    lines, token_cookie = take_token_cookie(lines) if has_token_cookie else (lines, None)
    if len(hosts) != 1 or not HOST.match(hosts[0]):
        raise Refused(400, "exactly one well-formed Host is needed")
    if upgrade is not None and (http_1_0 or b"upgrade" not in options or _HTTP_2.search(upgrade)):
        # Served as if it had not been asked for (RFC 9110, section 7.8).
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
    """Length of the body, None for chunked. One `chunked` or one length, nothing else (RFC 9112, section 6.3)."""
    if codings:
        if lengths or http_1_0:
            raise Refused(400, "Transfer-Encoding with Content-Length, or in HTTP/1.0")
        if len(codings) != 1:
            raise Refused(400, "more than one Transfer-Encoding")
        if codings[0].lower() != b"chunked":
            raise Refused(501, "no transfer coding but chunked is known")
        return None
    if not lengths:
        return 0
    length = parse_length(lengths[0])
    if len(lengths) != 1 or length is None:
        raise Refused(400, "malformed Content-Length")
    return length
