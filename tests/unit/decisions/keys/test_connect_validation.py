"""Validation of connect requests; each refusal is a 400 that names the field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.keys.connect_validation import MAX_AUTH_BYTES, check_connect_request
from plane.protocol import codec
from plane.protocol.control_api import ConnectRequest
from plane.protocol.errors import ApiFailure
from plane.protocol.spawn import SpawnConfig

GOOD: dict[str, Any] = {
    "key": {"name": "k", "namespace": "n", "tag": "t"},
    "user": "ann@example.org",
    "auth": {"role": "éditeur"},
    "spawn_config": {
        "id": "chosen-id",
        "cluster": "c",
        "pool": "",
        "executable": {"image": "i", "resource_limits": {"memory_limit_bytes": 1}},
        "lifetime_limit_seconds": 1,
        "max_idle_seconds": 0,
        "subdomain": "sub",
    },
}


def request_with(path: str, value: Any) -> ConnectRequest:
    document = codec.decode(codec.encode(GOOD), dict)
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place[name]
    place[last] = value
    return codec.convert(document, ConnectRequest)


def test_usual_request_is_valid() -> None:
    check_connect_request(codec.convert(GOOD, ConnectRequest))
    check_connect_request(ConnectRequest())


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("key.name", "x" * 256, "at most 255"),
        ("key.name", "a\0b", "NUL"),
        ("key.namespace", "x" * 256, "at most 255"),
        ("key.tag", "\0", "NUL"),
        ("user", "x" * 256, "at most 255"),
        ("user", "line\nbreak", "printable ASCII"),
        ("user", "José", "printable ASCII"),
        ("user", " ann", "printable ASCII"),
        ("auth", {"x": "y" * MAX_AUTH_BYTES}, "bytes"),
        ("spawn_config.id", "Bad_Name", "position 0"),
        ("spawn_config.id", "", "empty"),
        ("spawn_config.id", "x" * 46, "too long"),
        ("spawn_config.subdomain", "-a", "no - first"),
        ("spawn_config.subdomain", "A", "a-z"),
        ("spawn_config.pool", "x" * 256, "at most 255"),
        ("spawn_config.cluster", "x" * 256, "at most 255"),
        ("spawn_config.lifetime_limit_seconds", 0, "from 1"),
        ("spawn_config.lifetime_limit_seconds", -1, "from 1"),
        ("spawn_config.max_idle_seconds", -1, "from 0"),
        ("spawn_config.executable", "image", "must be an object"),
        ("spawn_config.executable", [], "must be an object"),
        ("spawn_config.executable.resource_limits.memory_limit_bytes", -1, "negative"),
    ],
)
def test_each_refusal_names_its_field(path: str, value: Any, says: str) -> None:
    with pytest.raises(ApiFailure) as caught:
        check_connect_request(request_with(path, value))
    assert caught.value.status == 400
    assert caught.value.message.startswith(f"{path}: ")
    assert says in caught.value.message


def test_a_token_in_a_cookie_needs_a_subdomain() -> None:
    check_connect_request(request_with("spawn_config.token_in_cookie", True))
    alone = ConnectRequest(spawn_config=SpawnConfig(executable={"image": "i"}, token_in_cookie=True))
    with pytest.raises(ApiFailure, match=r"^spawn_config\.token_in_cookie: needs `subdomain`"):
        check_connect_request(alone)


def test_nul_is_refused_at_every_depth() -> None:
    with pytest.raises(ApiFailure, match=r"spawn_config\.executable\.env\.A: must not contain NUL"):
        check_connect_request(request_with("spawn_config.executable.env", {"A": "\0"}))
    with pytest.raises(ApiFailure, match=r"auth\.list\[1\]: must not contain NUL"):
        check_connect_request(request_with("auth", {"list": ["", "\0"]}))
    with pytest.raises(ApiFailure, match=r"auth: must not contain NUL"):
        check_connect_request(request_with("auth", {"\0": 1}))


@pytest.mark.parametrize("number", [1e300, -5e-324])
def test_numbers_that_the_database_writes_out_are_few(number: float) -> None:
    check_connect_request(request_with("spawn_config.executable.env", {"A": [number] * 100}))
    with pytest.raises(ApiFailure, match=r"^spawn_config\.executable\.env\.A\[\d+\]: the numbers up to here"):
        check_connect_request(request_with("spawn_config.executable.env", {"A": [number] * 1000}))
    with pytest.raises(ApiFailure, match=r"^auth\.A\[\d+\]: .* more than 8192 digits"):
        check_connect_request(request_with("auth", {"A": [number] * 30}))
    # Others are not lengthened.
    check_connect_request(request_with("spawn_config.executable.env", {"A": [0.5, 1234567890123456789] * 10_000}))


@given(st.text(max_size=255))
def test_valid_user_fits_into_a_header(user: str) -> None:
    try:
        check_connect_request(ConnectRequest(user=user))
    except ApiFailure:
        return
    assert user.isascii()
    assert user == user.strip()
    assert all(character.isprintable() or character == "\t" for character in user)
