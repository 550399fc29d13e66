"""Which part of a `Referer` a backend gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.routing.host_names import HostNames
from plane.decisions.routing.referer import without_token

CLUSTER = b"plane.example"


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (b"https://plane.example/token/a/b?c", b"https://plane.example/a/b?c"),
        (b"https://PLANE.example:443/token", b"https://PLANE.example:443/"),
        (b"https://sub.plane.example/token?x", b"https://sub.plane.example/?x"),
        (b"https://user@plane.example/token/a", b"https://user@plane.example/a"),
        (b"/token/a", b"/a"),
        (b"https://elsewhere.example/token/a", b"https://elsewhere.example/token/a"),
        (b"https://notplane.example/token/a", b"https://notplane.example/token/a"),
        (b"about:blank", b"about:blank"),
        (b"", b""),
    ],
)
def test_a_referer_loses_its_token(sent: bytes, seen: bytes) -> None:
    assert without_token(sent, HostNames(CLUSTER)) == seen


@given(st.text("abc/?#.:@", max_size=20), st.sampled_from(["http://plane.example", "HTTPS://x.plane.example", ""]))
def test_no_referer_of_the_proxy_keeps_its_token(rest: str, origin: str) -> None:
    assert b"SECRET" not in without_token(f"{origin}/SECRET{rest}".encode(), HostNames(CLUSTER))
