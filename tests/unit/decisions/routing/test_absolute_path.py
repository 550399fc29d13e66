"""Which path segments can be tokens, and which session a page belongs to."""

from __future__ import annotations

import pytest

from plane.decisions.routing.absolute_path import is_issued_token, referred_token
from plane.random_ids import random_static_token, random_token


def test_tokens_that_controllers_issue_have_the_form_and_paths_of_applications_have_not() -> None:
    assert is_issued_token(random_token())
    assert is_issued_token(random_static_token())
    for segment in (
        "",
        "lab",
        "@vite",
        "theme.css",
        "gradio_api",
        "websockify",
        "x" * 42,
        "x" * 44,
        "é" * 43,
        "s." * 2,
    ):
        assert not is_issued_token(segment), segment


@pytest.mark.parametrize(
    ("referer", "token"),
    [
        (b"http://c:1/T/lab", "T"),
        (b"https://C:1/T", "T"),
        (b"http://user@c:1/T?q", "T"),
        (b"http://c:1/", None),
        (b"http://c:2/T/", None),
        (b"http://c:1.evil/T/", None),
        (b"/T/", None),
        (b"", None),
    ],
)
def test_only_a_page_of_the_same_host_tells_its_token(referer: bytes, token: str | None) -> None:
    assert referred_token(referer, b"c:1") == token


def test_the_usual_port_of_tls_makes_no_difference() -> None:
    assert referred_token(b"https://c/T/", b"c:443") == "T"
