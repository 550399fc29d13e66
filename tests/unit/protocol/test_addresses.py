"""Socket addresses on the wire, and the loopback test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.protocol.addresses import format_socket_address, is_loopback, parse_socket_address
from plane.protocol.errors import MessageError


@given(st.ip_addresses(), st.integers(0, 65535))
def test_formatted_address_is_parsed_back(address: object, port: int) -> None:
    text = format_socket_address(str(address), port)
    assert parse_socket_address(text) == (str(address), port)


@pytest.mark.parametrize(
    "text", ["", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "::1:80", "[1.2.3.4]:80", "host:80", "1.2.3.4:-1"]
)
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(MessageError):
        parse_socket_address(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("plane.localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_loopback_hosts_are_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
