"""Fields that only the proxy may send are removed from requests in every spelling, and no others are."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plane.decisions.http.chunks import ChunkScanner
from plane.decisions.http.protected_fields import FORWARDING_FIELDS, IDENTITY_FIELDS, MISSPELT_FIELDS, is_protected
from plane.decisions.http.request_head import RequestReader
from plane.decisions.routing.host_names import HostNames

PROTECTED = (*IDENTITY_FIELDS, *FORWARDING_FIELDS, *MISSPELT_FIELDS)
SEPARATORS = "!#$%&'*+-.^_`|~"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def normalise(name: str) -> str:
    """As the strictest gateway does it: in lower case, and all that is no letter or digit alike."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def must_go(name: str) -> bool:
    normal = normalise(name)
    return any(
        normal == known.removesuffix("-*") or (known.endswith("*") and normal.startswith(known[:-1]))
        for known in PROTECTED
    )


def seen_by_backend(name: str) -> tuple[bool, bool]:
    """Whether a field, and whether a trailer of this name is passed on."""
    head = f"GET /t HTTP/1.1\r\nHost: c:1\r\nBefore: 1\r\n{name}: eve\r\nAfter: 1"
    lines = RequestReader(HostNames(b"c:1")).read(head.encode()).fields.lines
    passed, _ = ChunkScanner().feed(f"0\r\nBefore: 1\r\n{name}: eve\r\nAfter: 1\r\n\r\n".encode())
    for rest in (lines, passed):
        assert b"Before: 1" in rest
        assert b"After: 1" in rest
    return b"eve" in lines, b"eve" in passed


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """A protected name with any separators, in any case."""
    words = [
        draw(st.text(LETTERS, min_size=1, max_size=8)) if word == "*" else word
        for word in draw(st.sampled_from(PROTECTED)).split("-")
    ]
    name = words[0]
    for word in words[1:]:
        name += draw(st.text(SEPARATORS, min_size=1, max_size=3)) + word
    return "".join(draw(st.sampled_from([letter.lower(), letter.upper()])) for letter in name)


@given(spellings())
@example("X.Verified.Username")
@example("x_verified_username")
@example("X-Verified")
@example("Forwarded")
@example("x.forwarded~host")
@example("X_Real_IP")
@example("Proxy")
def test_no_spelling_of_a_protected_name_passes(name: str) -> None:
    if name.lower() in ("content-length", "transfer-encoding"):
        # Framing in its usual spelling is read, not removed.
        return
    assert must_go(name)
    assert seen_by_backend(name) == (False, False)
    assert is_protected(name.encode())


@given(st.text(LETTERS + SEPARATORS, min_size=1, max_size=12).map(lambda text: f"X-{text}"))
@example("X-Verify")
@example("X-Verifiedly")
@example("X-Forward")
@example("X-Real-Name")
@example("X-Original-Filename")
def test_other_names_pass(name: str) -> None:
    assert seen_by_backend(name) == (not must_go(name), not must_go(name))


@pytest.mark.parametrize("name", ["Accept", "Client-Id", "Cookie", "Content-Type", "Forward", "Proxied", "True-Client"])
def test_everyday_names_pass(name: str) -> None:
    assert seen_by_backend(name) == (True, True)
