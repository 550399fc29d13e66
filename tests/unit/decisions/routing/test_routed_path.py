"""Which path a forward-auth server gets."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.controller.api.connect_fast_path import _PATH as FAST_PATH
from plane.decisions.routing.routed_path import AmbiguousPath, routed_path

PATHS = [
    "/",
    "/metrics",
    "/ctrl/connect",
    "/ctrl/c/[::1]:9090/d/dr-abc/drain",
    "/ctrl/c/a.b_c:1/state",
    "/ctrl/...",
    FAST_PATH,
]


@pytest.mark.parametrize("path", PATHS)
def test_the_paths_of_the_api_are_told_as_they_are(path: str) -> None:
    assert routed_path(path) == path


@given(st.text("/.%25;?#\\ae~:é\n\x00", max_size=12).map(lambda text: "/" + text))
def test_what_is_told_has_one_reading(path: str) -> None:
    try:
        told = routed_path(path)
    except AmbiguousPath:
        return
    assert told == path == unquote(path) == posixpath.normpath(path)
    assert not set(told) & set("%;?#\\é\n\x00")
