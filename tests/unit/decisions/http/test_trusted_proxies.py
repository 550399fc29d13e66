"""What a trusted proxy says of its client is believed as far as it can know it, and nobody else is believed."""

from __future__ import annotations

import ipaddress

import pytest

from plane.decisions.http.trusted_proxies import (
    MOST_HOPS,
    NO_CLAIMS,
    Claims,
    TrustedProxies,
    Visitor,
    direct_visitor,
    effective_host,
    parse_networks,
    plain_address,
    visitor_behind,
)

TRUSTED = TrustedProxies(parse_networks(["10.0.0.0/8,192.168.1.1", "fd00::/8"]))
PEER = direct_visitor("10.0.0.1", over_tls=False)


def behind(addresses: bytes = b"", scheme: bytes = b"", host: bytes = b"") -> Visitor:
    return visitor_behind(PEER, Claims(addresses, scheme, host), TRUSTED)


@pytest.mark.parametrize(
    ("addresses", "chain"),
    [
        (b"", "10.0.0.1"),
        (b"203.0.113.7", "203.0.113.7, 10.0.0.1"),
        (b"203.0.113.7, 10.9.9.9", "203.0.113.7, 10.9.9.9, 10.0.0.1"),
        # What stands before the client is what the client said.
        (b"6.6.6.6, 203.0.113.7", "203.0.113.7, 10.0.0.1"),
        (b"10.6.6.6, 203.0.113.7,10.9.9.9", "203.0.113.7, 10.9.9.9, 10.0.0.1"),
        (b"unknown, 10.9.9.9", "10.9.9.9, 10.0.0.1"),
        (b"6.6.6.6, nonsense", "10.0.0.1"),
        (b"6.6.6.6, ", "10.0.0.1"),
        # With ports, brackets, zones, and IPv4 as IPv6.
        (b"203.0.113.7:51234", "203.0.113.7, 10.0.0.1"),
        (b"[2001:db8::1]:443, fd00::5", "2001:db8::1, fd00::5, 10.0.0.1"),
        (b"2001:DB8:0::1", "2001:db8::1, 10.0.0.1"),
        (b"6.6.6.6, ::ffff:203.0.113.7, ::ffff:10.2.3.4", "203.0.113.7, 10.2.3.4, 10.0.0.1"),
        (b"fe80::1%eth0", "fe80::1, 10.0.0.1"),
        (b"10.2.2.2, 10.1.1.1", "10.2.2.2, 10.1.1.1, 10.0.0.1"),
    ],
)
def test_the_client_is_the_last_that_is_no_trusted_proxy(addresses: bytes, chain: str) -> None:
    visitor = behind(addresses)
    assert visitor.fields == f"\r\nx-forwarded-for: {chain}\r\nx-forwarded-proto: http".encode()
    assert visitor.address == chain.partition(",")[0]


def test_a_chain_of_any_length_is_read_for_a_bounded_time() -> None:
    visitor = behind(b"6.6.6.6, " + b", ".join([b"10.0.0.9"] * 1_000))
    assert visitor.address == "10.0.0.9"
    assert visitor.fields.count(b"10.0.0.9") == MOST_HOPS


@pytest.mark.parametrize(
    ("scheme", "over_tls"),
    [
        (b"https", True),
        (b"HTTPS", True),
        (b"wss", True),
        (b"http", False),
        (b"ws", False),
        (b"https, http", False),
        (b"http,https", True),
        (b"gopher", False),
        (b"https\xff", False),
        (b"", False),
    ],
)
def test_the_scheme_is_what_the_nearest_proxy_says(scheme: bytes, *, over_tls: bool) -> None:
    visitor = behind(scheme=scheme)
    assert visitor.over_tls is over_tls
    assert visitor.fields.endswith(b"\r\nx-forwarded-proto: " + (b"https" if over_tls else b"http"))


def test_a_scheme_that_is_not_told_is_that_of_the_connection() -> None:
    assert visitor_behind(direct_visitor("10.0.0.1", over_tls=True), NO_CLAIMS, TRUSTED).over_tls


@pytest.mark.parametrize(
    ("host", "told"),
    [
        (b"app.example.com", b"app.example.com"),
        (b"evil, app.example.com:8443", b"app.example.com:8443"),
        (b"[2001:db8::1]:443", b"[2001:db8::1]:443"),
        (b"a b", b""),
        (b"a/b", b""),
        (b"", b""),
    ],
)
def test_the_host_is_passed_on_if_it_is_one(host: bytes, told: bytes) -> None:
    visitor = behind(host=host)
    assert visitor.host == told
    assert (b"x-forwarded-host: " + told in visitor.fields) is bool(told)


@pytest.mark.parametrize(
    ("host", "claimed", "believed"),
    [
        # The load balancer put its own name there.
        (b"internal:9090", b"a.example.com", b"a.example.com"),
        (b"internal:9090", b"EXAMPLE.com:443", b"EXAMPLE.com:443"),
        (b"internal:9090", b"elsewhere.org", b"internal:9090"),
        (b"internal:9090", b"", b"internal:9090"),
        # A page of one session does not get to another's name with a field that it may set itself.
        (b"a.example.com", b"b.example.com", b"a.example.com"),
        (b"example.com", b"b.example.com", b"example.com"),
    ],
)
def test_the_host_that_was_asked_for_is_one_of_the_cluster(host: bytes, claimed: bytes, believed: bytes) -> None:
    assert effective_host(host, claimed, b"example.com") == believed


def test_networks_are_read_or_named() -> None:
    assert parse_networks(["10.0.0.0/8, ::1", "192.168.1.1"]) == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("::1/128"),
        ipaddress.ip_network("192.168.1.1/32"),
    )
    for text in ("", "10.0.0.1/8", "example.com", "10.0.0.0/33", "10.0.0.0/8,"):
        with pytest.raises(ValueError, match=r"does not appear|host bits"):
            parse_networks([text])


def test_what_is_no_address_is_trusted_by_nobody() -> None:
    for text in ("unknown", "", "/run/socket", "010.0.0.1", "10.1"):
        assert plain_address(text) is None
        assert text not in TRUSTED
    assert "10.0.0.1" in TRUSTED
    assert "11.0.0.1" not in TRUSTED
    assert not TrustedProxies(())
