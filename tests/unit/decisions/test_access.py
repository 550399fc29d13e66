"""Who may call the control API?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.access import Role, bearer_token, headers_to_forward, key_entry, parse_api_keys
from plane.protocol.errors import ConfigurationError

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).filter(lambda name: name[0] != "#")


def test_each_role_includes_the_lower_ones() -> None:
    allowed = {role: {needed for needed in Role if role.may(needed)} for role in Role}
    assert allowed == {
        Role.ADMIN: set(Role),
        Role.CONNECT: {Role.CONNECT, Role.READ},
        Role.READ: {Role.READ},
        Role.NODE: {Role.NODE},
    }


@given(st.dictionaries(st.text(min_size=1), st.tuples(NAMES, st.sampled_from(Role)), min_size=1, max_size=5), st.text())
def test_file_admits_exactly_its_keys(keys: dict[str, tuple[str, Role]], other: str) -> None:
    text = "\n".join(["# a comment", "", *(key_entry(name, role, key) for key, (name, role) in keys.items())])
    found = parse_api_keys(text)
    assert len(found) == len(keys)
    for key, (name, role) in keys.items():
        entry = found.find(key)
        assert entry is not None
        assert (entry.name, entry.role) == (name, role)
    assert other in keys or found.find(other) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no keys"),
        ("# only a comment\n", "no keys"),
        ("app connect", "line 1 is not of the form NAME ROLE sha256:HASH"),
        ("app connect plain-text-key", "line 1 is not of the form NAME ROLE sha256:HASH"),
        ("\napp connect sha256:ABC", "line 2 is not of the form NAME ROLE sha256:HASH"),
        (key_entry("app", Role.READ, "k").replace("read", "root"), "line 1: the role 'root' is none of"),
        (
            "\n".join([key_entry("a", Role.READ, "k"), key_entry("b", Role.ADMIN, "k")]),
            "line 2 has the same key as 'a'",
        ),
    ],
)
def test_invalid_file_is_refused_by_line(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        parse_api_keys(text)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
    ],
)
def test_bearer_token_is_parsed(header: str | None, token: str | None) -> None:
    assert bearer_token(header) == token


def test_forward_auth_headers() -> None:
    sent = [
        ("Host", "controller"),
        ("authorization", "Bearer t"),
        ("Cookie", "a=b"),
        ("Content-Length", "60"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("X-Original-Path", "/forged"),
        ("X_Original.Path", "/forged"),
    ]
    assert headers_to_forward(sent, "/ctrl/c/x/state") == [
        ("authorization", "Bearer t"),
        ("Cookie", "a=b"),
        ("x-original-path", "/c/x/state"),
    ]
    assert headers_to_forward([], "/metrics") == [("x-original-path", "/metrics")]
