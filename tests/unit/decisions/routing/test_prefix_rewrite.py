"""Absolute redirects and cookie paths are put below the token; nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.routing.prefix_rewrite import below_prefix

PREFIX = b"/T"


def rewritten(name: str, value: str, authority: bytes = b"c:1") -> str:
    fields = f"\r\nA: /x\r\n{name}: {value}\r\nB: Path=/".encode()
    before, after = b"\r\nA: /x\r\n" + name.encode() + b": ", b"\r\nB: Path=/"
    seen = below_prefix(fields, PREFIX, authority)
    assert seen.startswith(before)
    assert seen.endswith(after)
    return seen[len(before) : -len(after)].decode()


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/", "/T/"),
        ("/lab", "/T/lab"),
        ("/lab?next=/x#y", "/T/lab?next=/x#y"),
        ("/?q", "/T/?q"),
        ("http://c:1/lab", "http://c:1/T/lab"),
        ("https://C:1", "https://C:1/T/"),
        ("https://c:1?q", "https://c:1/T/?q"),
        ("//c:1/lab", "//c:1/T/lab"),
        # Below it already, by an application that reads x-forwarded-prefix.
        ("/T", "/T"),
        ("/T/lab", "/T/lab"),
        ("http://c:1/T/lab", "http://c:1/T/lab"),
        ("/Tx", "/T/Tx"),
        # Of another place, or relative.
        ("http://other/lab", "http://other/lab"),
        ("//other/lab", "//other/lab"),
        ("lab", "lab"),
        ("?q", "?q"),
        ("../lab", "../lab"),
        ("mailto:x", "mailto:x"),
        ("", ""),
        # What leads out of the prefix is resolved before.
        ("/../lab", "/T/lab"),
        ("/T/../lab", "/T/lab"),
        ("/T/%2e%2E/lab", "/T/lab"),
        ("/a/./b/..", "/T/a/"),
        ("/\\evil.example/", "/T/\\evil.example/"),
    ],
)
@pytest.mark.parametrize("name", ["Location", "location"])
def test_location(name: str, location: str, seen: str) -> None:
    assert rewritten(name, location) == seen


def test_the_usual_port_may_be_named() -> None:
    assert rewritten("Location", "http://c:80/x", b"c") == "http://c:80/T/x"
    assert rewritten("Location", "https://c/x", b"c:443") == "https://c/T/x"
    assert rewritten("Location", "http://c:81/x", b"c") == "http://c:81/x"


@pytest.mark.parametrize(
    ("cookie", "seen"),
    [
        ("a=b; Path=/", "a=b; Path=/T"),
        ("a=b; HttpOnly; path = /app ; Secure", "a=b; HttpOnly; path = /T/app; Secure"),
        ("a=b;Path=/;Path=/x", "a=b;Path=/T;Path=/T/x"),
        ("a=b; Path=/T/app", "a=b; Path=/T/app"),
        ("a=b; Path=app", "a=b; Path=app"),
        ("a=b", "a=b"),
        ("path=/; HttpOnly", "path=/; HttpOnly"),
        ("__Host-a=b; Secure; Path=/", "__Host-a=b; Secure; Path=/"),
    ],
)
def test_cookies(cookie: str, seen: str) -> None:
    assert rewritten("Set-Cookie", cookie) == seen


def test_every_cookie_of_a_response_is_rewritten() -> None:
    seen = below_prefix(b"\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; Path=/", PREFIX, b"c")
    assert seen.count(b"; Path=/T") == 2


@given(st.text(alphabet="/.%2eET?#\\ab", max_size=20))
def test_no_absolute_path_leads_out_of_the_prefix(path: str) -> None:
    if path.startswith(("//", "/\\")):
        return
    seen = rewritten("Location", f"/{path}").replace("\\", "/")
    if seen.startswith("//"):
        return
    depth = 0
    for segment in seen.split("?")[0].split("#")[0].split("/")[1:]:
        plain = segment.lower().replace("%2e", ".")
        depth += -1 if plain == ".." else 0 if plain in (".", "") else 1
        assert depth >= 0, seen
    assert seen.startswith("/T")


@given(st.text(alphabet="/.%2eET?#\\ab", max_size=20))
def test_rewriting_twice_changes_nothing_more(path: str) -> None:
    once = rewritten("Location", f"/{path}")
    assert rewritten("Location", once) == once
