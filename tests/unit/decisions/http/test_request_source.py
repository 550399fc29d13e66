"""Which requests the control API takes for those of a foreign web page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.http.request_source import RequestSource, SourceRules, host_name, is_known_host, refusal

OPEN = SourceRules(public_url="https://Plane.example/api", allowed_hosts=frozenset({"controller"}))
KEYS = SourceRules(public_url="https://plane.example", checks_host=False)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "127.0.0.1:8080",
        "10.0.0.1",
        "[::1]:8080",
        "[fe80::1]",
        "localhost",
        "LocalHost:9000",
        "localhost.:8080",
        "plane.example",
        "PLANE.example:8080",
        "controller:8080",
    ],
)
def test_these_hosts_are_the_controller_s_own(host: str | None) -> None:
    assert refusal(RequestSource(host), OPEN) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "plane.example.evil.example",
        "localhost@evil.example",
        "127.0.0.1:80@evil.example",
        "evil.example,127.0.0.1",
        "127.0.0.1,127.0.0.1",
        "2130706433",
        "[evil]",
        "::1",
        "",
        ".",
        ":8080",
    ],
)
def test_other_hosts_are_refused_where_nothing_else_proves_who_calls(host: str) -> None:
    assert "--allowed-host" in (refusal(RequestSource(host), OPEN) or "")
    assert refusal(RequestSource(host), KEYS) is None
    # The front page has no other protection.
    assert refusal(RequestSource(host), KEYS, page=True) is not None


@pytest.mark.parametrize("rules", [OPEN, KEYS])
@pytest.mark.parametrize(
    ("origin", "host", "passes"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        # TLS ends in front of the controller.
        ("https://127.0.0.1:8443", "127.0.0.1:8443", True),
        ("http://localhost", "localhost:80", True),
        ("https://plane.example", "10.0.0.1:8080", True),
        ("http://plane.example", "10.0.0.1:8080", False),
        ("https://plane.example:444", "10.0.0.1:8080", False),
        ("http://localhost:8080", "127.0.0.1:8080", False),
        ("http://127.0.0.1:8081", "127.0.0.1:8080", False),
        ("http://evil.example", "127.0.0.1:8080", False),
        ("http://evil.example", None, False),
        ("null", "127.0.0.1:8080", False),
        ("", "127.0.0.1:8080", False),
        ("file://", "127.0.0.1:8080", False),
        ("chrome-extension://127.0.0.1:8080", "127.0.0.1:8080", False),
        ("http://evil.example,http://127.0.0.1:8080", "127.0.0.1:8080", False),
        ("http://127.0.0.1:8080,http://127.0.0.1:8080", "127.0.0.1:8080", False),
        ("http://evil.example@127.0.0.1:8080", "127.0.0.1:8080", False),
        ("http://127.0.0.1:8080/", "127.0.0.1:8080", False),
        ("http://[", "127.0.0.1:8080", False),
    ],
)
def test_an_origin_must_be_the_api_s_own(origin: str, host: str | None, passes: bool, rules: SourceRules) -> None:
    assert (refusal(RequestSource(host, origin), rules) is None) is passes


@pytest.mark.parametrize(
    ("site", "passes"),
    [("none", True), ("same-origin", True), ("same-site", False), ("cross-site", False), ("Cross-Site", False)],
)
def test_what_the_browser_says_of_the_site_counts(site: str, passes: bool) -> None:
    assert (refusal(RequestSource("127.0.0.1", None, site), KEYS) is None) is passes


NAME = st.from_regex(r"[a-z][a-z0-9-]{0,8}(\.[a-z][a-z0-9-]{0,8}){0,3}", fullmatch=True)
PORT = st.one_of(st.just(""), st.integers(0, 65535).map(":{}".format))


@given(name=NAME, port=PORT)
def test_no_name_but_the_known_ones_passes(name: str, port: str) -> None:
    assert is_known_host(name + port, OPEN) is (name in ("localhost", "plane.example", "controller"))


@given(address=st.ip_addresses(), port=PORT)
def test_every_address_passes_as_host_and_as_origin(address: object, port: str) -> None:
    host = f"[{address}]{port}" if ":" in str(address) else f"{address}{port}"
    assert refusal(RequestSource(host, f"http://{host}", "same-origin"), OPEN, page=True) is None


@given(host=st.text(max_size=30), origin=st.text(max_size=30))
def test_no_text_is_an_error_and_none_makes_a_foreign_page_one_of_ours(host: str, origin: str) -> None:
    rules = SourceRules()
    if refusal(RequestSource(host, origin), rules) is None:
        assert is_known_host(host, rules)
        assert origin.lower().partition("://")[0] in ("http", "https")
        assert host_name(origin.partition("://")[2]) == host_name(host)
