"""The cookie that holds a token: how it is read, what a backend sees of it, and which requests may use it."""

from __future__ import annotations

import pytest

from plane.decisions.http.request_head import RequestReader
from plane.decisions.routing.host_names import HostNames
from plane.decisions.routing.token_cookie import TokenCookie, extract_token_cookie, redirect_target, set_cookie_field

ONE, TWO = "A" * 43, "B" * 43
HOST = b"sub.c:1"


def taken(*fields: str) -> tuple[str, TokenCookie]:
    lines, cookie = extract_token_cookie("".join(f"\r\n{field}" for field in fields).encode())
    return lines.decode(), cookie


def test_the_token_is_read_and_no_backend_sees_it() -> None:
    lines, cookie = taken("A: b", f"cookie: x=1;plane-token={ONE}; y=2; __Host-plane-token={TWO}", "C: d")
    assert lines == "\r\nA: b\r\nCookie: x=1; y=2\r\nC: d"
    assert cookie.token(over_tls=False) == ONE
    # Over TLS a sibling subdomain can set the plain one, and not this one.
    assert cookie.token(over_tls=True) == TWO


def test_a_field_with_nothing_else_goes_and_all_fields_are_read() -> None:
    lines, cookie = taken(f"Cookie: plane-token={ONE}", "Cookie: x=1", f"Cookie: plane-token={ONE}")
    assert lines == "\r\nCookie: x=1"
    assert cookie.plain == ONE


@pytest.mark.parametrize("value", ["", "x", ONE + "x", f'"{ONE}"', "../" + ONE[3:]])
def test_what_is_no_token_is_removed_and_not_used(value: str) -> None:
    assert taken(f"Cookie: plane-token={value}") == ("", TokenCookie(None, None))


def test_of_two_different_tokens_none_is_believed() -> None:
    assert taken(f"Cookie: plane-token={ONE}; plane-token={TWO}")[1].plain is None


def test_a_reader_takes_the_cookie_out_of_every_request_and_keeps_the_applications_referer() -> None:
    reader = RequestReader(HostNames(b"c:1"))
    head = f"GET / HTTP/1.1\r\nHost: sub.c:1\r\nReferer: http://sub.c:1/lab/tree\r\nCookie: plane-token={ONE}"
    fields = reader.read(head.encode()).fields
    assert fields.lines == b"\r\nHost: sub.c:1\r\nReferer: http://sub.c:1/lab/tree"
    assert fields.token_cookie is not None
    assert fields.token_cookie.plain == ONE
    secret = reader.read(head.replace("/lab", f"/{TWO}").encode()).fields
    assert TWO.encode() not in secret.lines
    assert reader.read(b"GET / HTTP/1.1\r\nHost: sub.c:1\r\nCookie: a=b").fields.token_cookie is None


@pytest.mark.parametrize(
    ("fields", "method", "upgrade", "allowed"),
    [
        # The session's own pages, a person's bookmark, a program.
        (("Sec-Fetch-Site: same-origin", "Origin: null"), b"POST", False, True),
        (("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), b"GET", False, True),
        ((), b"POST", False, True),
        (("Origin: http://sub.c:1",), b"POST", False, True),
        (("Origin: https://SUB.c:1",), b"GET", True, True),
        # A link of another site, followed.
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), b"GET", False, True),
        # What a sibling or another site causes otherwise.
        (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), b"POST", False, False),
        (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"), b"GET", False, False),
        (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"), b"GET", False, False),
        (("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: websocket"), b"GET", True, False),
        (("Origin: http://evil.c:1",), b"GET", True, False),
        (("Origin: http://evil.c:1",), b"POST", False, False),
        (("Origin: null",), b"POST", False, False),
        (("Origin: sub.c:1",), b"POST", False, False),
    ],
)
def test_only_the_sessions_own_pages_may_use_it(
    fields: tuple[str, ...], method: bytes, upgrade: bool, allowed: bool
) -> None:
    cookie = taken(f"Cookie: plane-token={ONE}", *fields)[1]
    assert cookie.may_be_used(method, HOST, upgrade=upgrade, over_tls=False) == allowed


def test_over_tls_a_page_without_tls_is_another_origin() -> None:
    cookie = taken("Origin: http://sub.c:1")[1]
    assert cookie.may_be_used(b"POST", HOST, upgrade=False, over_tls=False)
    assert not cookie.may_be_used(b"POST", HOST, upgrade=False, over_tls=True)


def test_the_cookie_belongs_to_the_host_alone() -> None:
    plain = set_cookie_field(ONE, over_tls=False).decode()
    assert plain == f"\r\nSet-Cookie: plane-token={ONE}; Path=/; HttpOnly; SameSite=Lax"
    secure = set_cookie_field(ONE, over_tls=True).decode()
    assert secure == f"\r\nSet-Cookie: __Host-plane-token={ONE}; Path=/; HttpOnly; SameSite=Lax; Secure"


@pytest.mark.parametrize(
    ("rest", "location"),
    [
        ("", "/"),
        ("/", "/"),
        ("?q=/x", "/?q=/x"),
        ("/lab/tree?q", "/lab/tree?q"),
        # Never the address of another host.
        ("//evil.example/", "/.//evil.example/"),
        ("/\\evil.example/", "/./\\evil.example/"),
    ],
)
@pytest.mark.parametrize("token", [ONE, f"s.{ONE}"])
def test_the_redirect_keeps_path_and_query_and_stays_on_the_host(token: str, rest: str, location: str) -> None:
    assert redirect_target(f"/{token}{rest}".encode(), token) == location.encode()
