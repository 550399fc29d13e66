"""The syntax of heads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.http.grammar import (
    HOST,
    connection_options,
    fields_are_valid,
    has_only_allowed_bytes,
    line_ends_are_valid,
    parse_length,
    without_hop_by_hop_fields,
)


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\nA: \xfc\tb", b"\r\n\r\n"])
def test_visible_bytes_and_whole_line_ends_are_allowed(head: bytes) -> None:
    assert has_only_allowed_bytes(head)


@pytest.mark.parametrize("head", [b"a\0b", b"a\x7fb", b"a\nb", b"a\rb", b"a\r\r\nb"])
def test_control_bytes_and_half_line_ends_are_not_allowed(head: bytes) -> None:
    assert not has_only_allowed_bytes(head)


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n"]), max_size=8))
def test_the_beginning_of_a_valid_part_is_valid(pieces: list[bytes]) -> None:
    part = b"".join(pieces)
    if line_ends_are_valid(part):
        assert all(line_ends_are_valid(part[:end]) for end in range(len(part)))


@pytest.mark.parametrize(
    ("block", "valid"),
    [
        (b"", True),
        (b"\r\nA: b\r\nc:", True),
        (b"\r\nA : b", False),
        (b"\r\n A: b", False),
        (b"\r\nA: b\r\n folded", False),
        (b"\r\n: b", False),
        (b"\r\nA", False),
        (b"A: b", False),
    ],
)
def test_field_lines_have_a_name_and_are_not_folded(block: bytes, valid: bool) -> None:
    assert fields_are_valid(block) is valid


def test_fields_that_connection_names_are_removed_except_those_that_frame_or_route() -> None:
    options = connection_options(b"Keep-Alive, X-Hop ,host,content-length,")
    lines = b"\r\nHost: a\r\nx-hop: 1\r\nX-HOP: 2\r\nContent-Length: 3\r\nX-Hop-2: 4"
    assert without_hop_by_hop_fields(lines, options) == b"\r\nHost: a\r\nContent-Length: 3\r\nX-Hop-2: 4"
    assert without_hop_by_hop_fields(lines, connection_options(b"")) is lines


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"12", 12), (b"", None), (b"+1", None), (b"-1", None), (b"1 ", None), (b"0x1", None), (b"1_0", None)],
)
def test_a_length_has_digits_only(value: bytes, length: int | None) -> None:
    assert parse_length(value) == length


def test_a_length_fits_an_integer_of_64_bits() -> None:
    assert parse_length(b"9" * 18) == 10**18 - 1
    assert parse_length(b"9" * 19) is None


@pytest.mark.parametrize(
    ("host", "valid"),
    [
        (b"a.b:80", True),
        (b"[::1]:80", True),
        (b"a", True),
        (b"a b", False),
        (b"a@b", False),
        (b"a/b", False),
        (b"", False),
    ],
)
def test_a_host_is_a_name_or_an_address_and_a_port(host: bytes, valid: bool) -> None:
    assert (HOST.match(host) is not None) is valid
