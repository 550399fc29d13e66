"""Links from elsewhere open the console; a sign-in leads to pages of the console only."""

from __future__ import annotations

import pytest

from plane.decisions.console.navigation import (
    is_link_from_elsewhere,
    is_own_machine,
    is_secure_origin,
    target_after_sign_in,
)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_person_who_follows_a_link_is_recognized(site: str) -> None:
    assert is_link_from_elsewhere("GET", site, "navigate", "document")


@pytest.mark.parametrize(
    "request_fields",
    [
        ("POST", "cross-site", "navigate", "document"),
        ("GET", "cross-site", "navigate", "iframe"),
        ("GET", "cross-site", "no-cors", "image"),
        ("GET", "cross-site", "cors", "empty"),
        ("GET", "same-origin", "navigate", "document"),
        ("GET", "none", "navigate", "document"),
        ("GET", None, None, None),
    ],
)
def test_anything_else_is_no_link(request_fields: tuple[str, str | None, str | None, str | None]) -> None:
    assert not is_link_from_elsewhere(*request_fields)


@pytest.mark.parametrize(
    "path", ["/console", "/console/backends?q=a&status=all", "/console/backends/abc", "/console/drones"]
)
def test_a_sign_in_leads_back_to_the_page(path: str) -> None:
    assert target_after_sign_in(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//evil.example",
        "https://evil.example/console",
        "/console//evil.example/..\\x",
        "/console\\evil",
        "/console\r\nSet-Cookie: a=b",
        "/consoles",
        "/ctrl/status",
        "javascript:alert(1)",
        "/console/sign-in?next=/console",
        "/console#x",
    ],
)
def test_a_sign_in_leads_nowhere_else(path: str) -> None:
    assert target_after_sign_in(path) == "/console"


def test_the_browser_s_own_scheme_decides_whether_the_cookie_is_secure() -> None:
    assert is_secure_origin("https://plane.example")
    assert not is_secure_origin("http://plane.example")
    assert not is_secure_origin(None)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_the_own_machine(address: str) -> None:
    assert is_own_machine(address)


@pytest.mark.parametrize("address", [None, "", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "localhost", "0.0.0.0"])
def test_anything_else_is_another_machine(address: str | None) -> None:
    assert not is_own_machine(address)
