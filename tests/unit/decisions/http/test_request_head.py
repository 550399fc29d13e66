"""What is read from the head of a request, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.http.limits import HttpLimits
from plane.decisions.http.request_head import (
    KNOWN_LIMIT,
    KNOWN_LIMIT_BYTES,
    RequestFields,
    RequestReader,
    RequestRefused,
)
from plane.decisions.routing.host_names import HostNames
from plane.decisions.routing.rewrite import origin_form, split_target

CLUSTER = b"plane.example"


@given(st.binary(max_size=300))
def test_the_reader_refuses_malformed_bytes_and_fails_in_no_other_way(data: bytes) -> None:
    for head in (data, b"GET /t HTTP/1.1\r\nHost: c:1" + data, b"GET /" + data + b" HTTP/1.1\r\nHost: c:1"):
        try:
            read = RequestReader(HostNames(b"c:1")).read(head)
            token, forwarded = split_target(origin_form(read))
        except RequestRefused:
            continue
        assert forwarded.startswith(b"/")
        assert "/" not in token
        assert b"\r\n\r\n" not in head


def test_the_reader_does_not_confuse_cached_fields() -> None:
    reader = RequestReader(HostNames(b"c:1"))
    first = reader.read(b"GET /a HTTP/1.1\r\nHost: c:1\r\nConnection: close")
    again = reader.read(b"GET /b HTTP/1.1\r\nHost: c:1\r\nConnection: close")
    older = reader.read(b"GET /b HTTP/1.0\r\nHost: c:1\r\nConnection: close")
    other = reader.read(b"GET /b HTTP/1.1\r\nHost: c:1")
    assert (again.target, again.fields) == (b"/b", first.fields)
    assert older.http_1_0
    assert other.fields.keep_alive
    assert not again.fields.keep_alive


def test_the_reader_caches_fields_across_connections_up_to_a_limit() -> None:
    reader = RequestReader(HostNames(b"c:1"))

    def fields(more: str) -> RequestFields:
        return reader.read(f"GET /a HTTP/1.1\r\nHost: c:1\r\n{more}".encode()).fields

    first = fields("a: 1")
    assert fields("a: 1") is first
    large = "a: " + "1" * KNOWN_LIMIT_BYTES
    assert fields(large) is not fields(large)
    for number in range(KNOWN_LIMIT):
        fields(f"b: {number}")
    again = fields("a: 1")
    assert again is not first
    assert again == first


def test_the_reader_applies_its_limits() -> None:
    reader = RequestReader(HostNames(CLUSTER), HttpLimits(head_bytes=100, target_bytes=20, fields=2))
    for head, status in (
        (b"GET /t HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 100, 431),
        (b"GET /" + b"t" * 20 + b" HTTP/1.1\r\nHost: a", 414),
        (b"GET /t HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d", 431),
    ):
        with pytest.raises(RequestRefused) as refused:
            reader.read(head)
        assert refused.value.status == status
