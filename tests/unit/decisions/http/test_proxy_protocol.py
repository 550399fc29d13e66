"""Headers of the PROXY protocol, versions 1 and 2, whole and in pieces; and what is none."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.http.proxy_protocol import LARGEST_BYTES, MalformedProxyHeader, ProxyHeader, read_proxy_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(rest)) + rest


def addresses(source: str, destination: str) -> bytes:
    return b"".join(ipaddress.ip_address(one).packed for one in (source, destination)) + struct.pack("!HH", 51234, 443)


def extension(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


V4 = addresses("203.0.113.7", "192.0.2.1")
V6 = addresses("2001:db8::7", "2001:db8::1")
UNIX = b"/run/one".ljust(108, b"\0") + b"/run/two".ljust(108, b"\0")
# The client came by TLS, its certificate was not checked; with the version as an extension of its own.
SSL = extension(0x20, b"\x01\x00\x00\x00\x00" + extension(0x21, b"TLSv1.3"))
NO_SSL = extension(0x20, b"\x00\x00\x00\x00\x00")

WHOLE = [
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 51234 443\r\n", "203.0.113.7", False),
    (b"PROXY TCP6 2001:DB8::7 2001:db8::1 1 65535\r\n", "2001:db8::7", False),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 0 443\r\n", "203.0.113.7", False),
    (b"PROXY UNKNOWN\r\n", None, False),
    (b"PROXY UNKNOWN ffff:f...f:ffff 1 2 whatever\r\n", None, False),
    (v2(0x21, 0x11, V4), "203.0.113.7", False),
    (v2(0x21, 0x21, V6), "2001:db8::7", False),
    (v2(0x21, 0x12, V4), "203.0.113.7", False),
    (v2(0x21, 0x31, UNIX), None, False),
    (v2(0x21, 0x00, b""), None, False),
    (v2(0x21, 0x00, b"anything"), None, False),
    # A health check: whatever else it says is ignored.
    (v2(0x20, 0x00, b""), None, False),
    (v2(0x20, 0x11, V4), None, False),
    (v2(0x20, 0xFF, b"???"), None, False),
    (v2(0x21, 0x11, V4 + SSL), "203.0.113.7", True),
    (v2(0x21, 0x11, V4 + NO_SSL), "203.0.113.7", False),
    (v2(0x21, 0x21, V6 + extension(0x04, b"\0" * 40) + extension(0xEA, b"vpce-1") + SSL), "2001:db8::7", True),
]


@pytest.mark.parametrize(("header", "client", "over_tls"), WHOLE)
def test_a_header_names_the_client(header: bytes, client: str | None, *, over_tls: bool) -> None:
    assert read_proxy_header(header) == ProxyHeader(len(header), client, over_tls)


@given(whole=st.sampled_from(WHOLE), rest=st.binary(max_size=30))
def test_a_header_ends_where_it_ends_and_each_part_of_it_waits_for_more(
    whole: tuple[bytes, str | None, bool], rest: bytes
) -> None:
    header, client, over_tls = whole
    assert read_proxy_header(header + rest) == ProxyHeader(len(header), client, over_tls)
    for end in range(len(header)):
        assert read_proxy_header(header[:end]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00",
        b"proxy TCP4 203.0.113.7 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1\r\n",
        b"PROXY TCP4 203.0.113.7  192.0.2.1 1 2\r\n",
        b"PROXY TCP4 203.0.113.07 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
        b"PROXY TCP6 203.0.113.7 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 2\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 01 2\r\n",
        b"PROXY TCP4 203.0.113.7\r\nX: y 192.0.2.1 1 2\r\n",
        b"PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n",
        b"PROXY UNKNOWNER\r\n",
        b"PROXY UNKNOWN " + b"x" * 100,
        b"\r\n\r\nGET / HTTP/1.1\r\n",
        SIGNATURE + b"\x11\x11\x00\x00",
        SIGNATURE + b"\x22\x11\x00\x00",
        SIGNATURE + b"\x21\x11\xff\xff",
        v2(0x21, 0x13, V4),
        v2(0x21, 0x41, V4),
        v2(0x21, 0x11, V4[:-1]),
        v2(0x21, 0x21, V4),
        v2(0x21, 0x11, V4 + b"\x20\x00"),
        v2(0x21, 0x11, V4 + b"\x20\x00\x05\x01"),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedProxyHeader):
        read_proxy_header(data)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda rest: SIGNATURE + rest)))
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    try:
        header = read_proxy_header(data)
    except MalformedProxyHeader:
        return
    assert header is None or header.size <= min(len(data), LARGEST_BYTES)
