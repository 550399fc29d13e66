"""The syntax of HTTP/1 heads, of requests and responses. A head that does not conform is refused, never repaired.

RFC 9112 (message syntax) and RFC 9110 (field syntax). Used by `request_head` and `response_head`.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "HOST",
    "TOKEN",
    "connection_options",
    "fields_are_valid",
    "has_only_allowed_bytes",
    "line_ends_are_valid",
    "parse_length",
    "without_hop_by_hop_fields",
]

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

# The value of `Host`: a name or an address, and a port.
HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?\Z")

# All bytes that may occur in a head: visible ASCII, space, tab, obs-text, and the CR and LF that end lines.
_ALLOWED: Final = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])
# Field lines, each with the line end before it: no space before the colon, no folded line (both begin a
# line with a byte that no token contains).
_FIELDS: Final = re.compile(rb"(?:\r\n" + TOKEN + rb":[^\r\n]*)*")

# Options that are not fields, and fields that frame or route the message. They stay, whatever `Connection` names.
_NEVER_FOR_ONE_HOP: Final = frozenset(
    (b"", b"close", b"keep-alive", b"host", b"content-length", b"transfer-encoding", b"upgrade")
)


def has_only_allowed_bytes(head: bytes) -> bool:
    """Return whether a head has no control bytes, and CR and LF only together."""
    line_ends = head.count(b"\r\n")
    return not head.translate(None, _ALLOWED) and head.count(b"\n") == line_ends and head.count(b"\r") == line_ends


def line_ends_are_valid(part: bytes) -> bool:
    """Return whether CR and LF occur only together in a part of a head. A CR at its end may be half a line end."""
    line_ends = part.count(b"\r\n")
    return part.count(b"\n") == line_ends and part.count(b"\r") - part.endswith(b"\r") == line_ends


def fields_are_valid(block: bytes) -> bool:
    """Return whether ``block`` consists of field lines, each begun by CR LF."""
    return _FIELDS.fullmatch(block) is not None


def connection_options(connection: bytes) -> frozenset[bytes]:
    """Return the options of a `Connection` field, in lower case."""
    if not connection:
        return frozenset()
    return frozenset(option.strip(b" \t").lower() for option in connection.split(b","))


def without_hop_by_hop_fields(lines: bytes, options: frozenset[bytes]) -> bytes:
    """Return field lines, each begun by CR LF, without those that `Connection` names (RFC 9110, section 7.6.1).

    It takes one pass however many are named: a client may name thousands.
    """
    named = options - _NEVER_FOR_ONE_HOP
    if not named:
        return lines
    kept = [line for line in lines.split(b"\r\n")[1:] if line.partition(b":")[0].lower() not in named]
    return b"".join(b"\r\n" + line for line in kept)


def parse_length(value: bytes) -> int | None:
    """Return a Content-Length, which has only digits and fits a 64-bit integer; otherwise None."""
    return int(value) if value.isdigit() and len(value) <= 18 else None
