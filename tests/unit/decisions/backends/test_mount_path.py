"""Hostile mount paths are refused before any file is touched; accepted ones stay below the base."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.backends.mount_path import MountRefused, mount_path

HOSTILE = [
    "",
    ".",
    "..",
    "../..",
    "../../etc",
    "/etc",
    "/",
    "a//b",
    "a/../../b",
    "a/./b",
    "a/..",
    "nul\0",
    "x" * 256,
    "/".join("abcdefghijklmnopq"),
    "y/" * 2000,
    "\ud800",
]
PARTS = st.sampled_from(["", ".", "..", "/", "a", "b c", "…", "\0", "x" * 300, "~", "$HOME", "\\", "a\nb", "\ud800"])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_paths_are_refused(name: str) -> None:
    with pytest.raises(MountRefused, match=r"executable\.mount"):
        mount_path(name, "key")


@pytest.mark.parametrize("name", [*HOSTILE, "a/b"])
def test_hostile_key_names_are_refused(name: str) -> None:
    with pytest.raises(MountRefused, match=r"executable\.mount: true mounts the key's folder"):
        mount_path(True, name)


@given(st.one_of(st.text(), st.lists(PARTS).map("/".join), st.lists(PARTS).map("".join)), st.booleans())
def test_an_accepted_path_is_below_the_base(name: str, as_key: bool) -> None:
    try:
        parts = mount_path(True, name) if as_key else mount_path(name, "key")
    except MountRefused:
        return
    assert parts
    joined = posixpath.normpath(posixpath.join("/base", *parts))
    assert joined.startswith("/base/")
    assert joined.count("/") == 1 + len(parts)
    assert "\0" not in joined


def test_no_mount_has_no_path() -> None:
    assert mount_path(None, "key") is None
    assert mount_path(False, "key") is None
    assert mount_path(True, "key") == ("key",)
    assert mount_path("docs/one/", None) == ("docs", "one")
    with pytest.raises(MountRefused, match="there is no key"):
        mount_path(True, None)
