"""Where a webhook may send events."""

from __future__ import annotations

import ipaddress

import pytest

from plane.decisions.webhooks.target import address_refusal, check_webhook_name, check_webhook_url
from plane.protocol.errors import ApiFailure

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_may_be_reached(address: str) -> None:
    assert address_refusal(address, ()) is None


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",  # metadata of clouds
        "172.16.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "fc00::1",
        "fd00:ec2::254",  # metadata of a cloud
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_other_addresses_are_refused_with_the_option_that_allows_them(address: str) -> None:
    reason = address_refusal(address, ())
    assert reason is not None
    assert "--webhook-allow-network" in reason


@pytest.mark.parametrize("address", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "", "1.2.3"])
def test_what_is_no_plain_address_is_refused(address: str) -> None:
    assert "not an IP address" in str(address_refusal(address, LOOPBACK))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1"])
def test_an_allowed_network_may_be_reached(address: str) -> None:
    assert address_refusal(address, LOOPBACK) is None
    assert address_refusal("10.0.0.1", LOOPBACK) is not None


@pytest.mark.parametrize(
    "url", ["https://example.com/hook?a=b", "http://example.com:8080", "https://8.8.8.8/", "https://[2606:4700::1111]/"]
)
def test_urls_of_http_are_accepted(url: str) -> None:
    assert check_webhook_url(url, ()) == url


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("ftp://example.com", "http"),
        ("example.com", "http"),
        ("https://", "host"),
        ("https://example.com:0/", "port"),
        ("https://example.com:99999/", "[Pp]ort"),
        ("https://ada:secret@example.com/", "password"),
        ("https://@example.com/", "password"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com/\u00e4", "ASCII"),
        ("https://example.com/" + "a" * 2000, "2000"),
        ("https://127.0.0.1/", "not public"),
        ("https://[::1]/", "not public"),
        ("https://[::ffff:10.0.0.1]:8080/", "not public"),
        ("https://[bad/", "IPv6"),
    ],
)
def test_other_urls_are_refused_with_the_rule(url: str, named: str) -> None:
    with pytest.raises(ApiFailure, match=named) as refused:
        check_webhook_url(url, ())
    assert refused.value.status == 400


def test_names_are_short_and_plain() -> None:
    assert check_webhook_name("billing-2") == "billing-2"
    for name in ("", "-a", "A", "a/b", "a" * 64, "a\n"):
        with pytest.raises(ApiFailure, match="1 to 63"):
            check_webhook_name(name)
