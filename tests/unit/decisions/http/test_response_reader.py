"""Where the responses of a backend's connection begin and end."""

from __future__ import annotations

import pytest

from plane.decisions.http.limits import HttpLimits
from plane.decisions.http.response_head import InvalidResponse
from plane.decisions.http.response_reader import ResponseReader

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_head_is_read_however_it_is_cut() -> None:
    for place in range(1, len(OK)):
        reader = ResponseReader()
        assert reader.read_head(OK[:place]) is None
        assert reader.head_begun
        head = reader.read_head(OK[place:] + b"ok")
        assert head is not None
        assert (head.status, head.length, reader.rest, reader.head_begun) == (200, 2, b"ok", False)
        assert reader.last_head is head


def test_the_same_head_is_read_once_but_not_for_a_head_request() -> None:
    reader = ResponseReader()
    first = reader.read_head(OK)
    assert reader.read_head(OK) is first
    to_head_request = reader.read_head(OK, to_head_request=True)
    assert to_head_request is not None
    assert to_head_request.length == 0
    after = reader.read_head(OK)
    assert after is not None
    assert after.length == 2


@pytest.mark.parametrize("data", [b"SSH-2.0", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK" + b"a" * 50])
def test_what_cannot_become_a_head_is_not_waited_for(data: bytes) -> None:
    with pytest.raises(InvalidResponse):
        ResponseReader(limits=HttpLimits(response_head_bytes=40)).read_head(data)


@pytest.mark.parametrize(
    ("head", "decodes", "pieces", "passed", "clean"),
    [
        (OK, False, [b"o", b"k"], [b"o", b"k"], True),
        (OK, False, [b"ok!"], [b"ok"], False),
        (CHUNKED, False, [b"1\r\no\r\n0", b"\r\n\r\n"], [b"1\r\no\r\n0", b"\r\n\r\n"], True),
        (CHUNKED, False, [b"0\r\n\r\n!"], [b"0\r\n\r\n"], False),
        (CHUNKED, True, [b"1\r\no\r\n0\r\n\r\n"], [b"o"], True),
    ],
)
def test_a_body_ends_where_its_head_says(
    head: bytes, decodes: bool, pieces: list[bytes], passed: list[bytes], clean: bool
) -> None:
    reader = ResponseReader()
    begun = reader.read_head(head)
    assert begun is not None
    reader.begin_body(begun, decodes_chunks=decodes)
    assert not reader.done
    assert [reader.read_body(piece) for piece in pieces] == passed
    assert (reader.done, reader.clean) == (True, clean)


def test_a_body_without_a_length_has_no_end() -> None:
    reader = ResponseReader()
    head = reader.read_head(b"HTTP/1.1 200 OK\r\n\r\n")
    assert head is not None
    reader.begin_body(head)
    assert reader.read_body(b"x" * 100) == b"x" * 100
    assert not reader.done
