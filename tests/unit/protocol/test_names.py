"""Valid and invalid names, cluster names and subdomains."""

from __future__ import annotations

import pytest

from plane.protocol.errors import (
    InvalidCharacter,
    InvalidClusterName,
    InvalidName,
    NameTooLong,
    WrongPrefix,
)
from plane.protocol.names import (
    NodeKind,
    Prefix,
    check_name,
    check_subdomain,
    cluster_url_scheme,
    container_name,
    parse_cluster_name,
    parse_node_name,
)


def test_each_rule_has_its_own_error() -> None:
    with pytest.raises(WrongPrefix, match="'dr-'"):
        check_name("px-a", Prefix.DRONE)
    with pytest.raises(InvalidCharacter, match="'_' at position 4") as caught:
        check_name("dr-a_b", Prefix.DRONE)
    assert (caught.value.character, caught.value.position) == ("_", 4)
    with pytest.raises(NameTooLong, match="46 characters"):
        check_name("a" * 46, Prefix.BACKEND)
    assert check_name("a" * 45, Prefix.BACKEND)
    with pytest.raises(InvalidName, match="empty"):
        check_name("", Prefix.BACKEND)


def test_kind_of_a_node_follows_from_its_name() -> None:
    assert parse_node_name("dr-a") == (NodeKind.DRONE, "dr-a")
    assert parse_node_name("px-a") == (NodeKind.PROXY, "px-a")
    assert parse_node_name("ns-a") == (NodeKind.ACME_DNS_SERVER, "ns-a")
    with pytest.raises(InvalidName, match="must start with one of"):
        parse_node_name("co-a")


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("plane.example.com", "https"),
        ("localhost:9090", "http"),
        ("a.b:443", "https"),
        ("1.2.3.4:80", "http"),
        ("[::1]:80", "http"),
        ("[::1]", "https"),
        ("x:0", "http"),
        ("x:65535", "http"),
    ],
)
def test_valid_cluster_names_are_accepted(name: str, scheme: str) -> None:
    assert parse_cluster_name(name) == name
    assert cluster_url_scheme(name) == scheme


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "a-",
        "a b",
        "a:65536",
        "a:x",
        "a:",
        ":80",
        "a/b",
        "http://a",
        "a..b",
        "a" * 64,
        "[::1",
        "::1",
        "a\n",
        "é",
    ],
)
def test_invalid_cluster_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidClusterName, match="Invalid cluster name"):
        parse_cluster_name(name)


@pytest.mark.parametrize("name", ["a", "a-b", "0", "a" * 63])
def test_valid_subdomains_are_accepted(name: str) -> None:
    assert check_subdomain(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a" * 64, "a_b", "é"])
def test_invalid_subdomains_are_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="subdomain"):
        check_subdomain(name)


def test_container_is_named_after_its_backend() -> None:
    assert container_name("x") == "plane-x"


def test_a_url_instead_of_a_cluster_is_told_the_form() -> None:
    with pytest.raises(InvalidClusterName, match="it must be HOST or HOST:PORT"):
        parse_cluster_name("http://plane.example.com")
