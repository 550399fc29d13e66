"""What is read from the head of a response, and the head that the client gets."""

from __future__ import annotations

import pytest

from plane.decisions.http.response_head import (
    CORS_FIELDS,
    UNTIL_CLOSE,
    InvalidResponse,
    ResponseHead,
    could_become_head,
    read_response_head,
    without_chunked_framing,
)


def read(*lines: str, head_request: bool = False) -> ResponseHead:
    return read_response_head("\r\n".join(lines).encode(), to_head_request=head_request)


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        (("HTTP/1.1 200 OK", "Content-Length: 5"), 5),
        (("HTTP/1.1 200 OK", "Transfer-Encoding: Chunked"), None),
        (("HTTP/1.1 200 OK",), UNTIL_CLOSE),
        (("HTTP/1.1 204 No", "Content-Length: 5"), 0),
        (("HTTP/1.1 304 Not", "Content-Length: 5"), 0),
        (("HTTP/1.1 100 Continue",), 0),
    ],
)
def test_a_body_is_as_long_as_its_head_says_unless_there_is_none_by_rule(
    lines: tuple[str, ...], length: int | None
) -> None:
    assert read(*lines).length == length


@pytest.mark.parametrize(
    ("lines", "head_request", "absent"),
    [
        (("HTTP/1.1 200 OK", "Content-Length: 5"), True, True),
        (("HTTP/1.1 200 OK",), True, True),
        (("HTTP/1.1 200 OK", "Content-Length: 0"), True, False),
        (("HTTP/1.1 304 Not", "Content-Length: 5"), False, True),
        (("HTTP/1.1 304 Not",), False, False),
        (("HTTP/1.1 200 OK", "Content-Length: 5"), False, False),
    ],
)
def test_fields_of_a_body_that_is_absent_by_rule_are_noticed(
    lines: tuple[str, ...], head_request: bool, absent: bool
) -> None:
    assert read(*lines, head_request=head_request).announces_absent_body is absent


@pytest.mark.parametrize(
    "lines",
    [
        ("HTTP/2 200 OK",),
        ("HTTP/1.1 99 x",),
        ("HTTP/1.1 200 OK", "A : b"),
        ("HTTP/1.1 200 OK", "Content-Length: 1", "Content-Length: 1"),
        ("HTTP/1.1 200 OK", "Content-Length: x"),
        ("HTTP/1.1 200 OK", "Content-Length: 1", "Transfer-Encoding: chunked"),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: gzip, chunked"),
        ("HTTP/1.0 200 OK", "Transfer-Encoding: chunked"),
    ],
)
def test_a_malformed_or_ambiguous_head_is_invalid(lines: tuple[str, ...]) -> None:
    with pytest.raises(InvalidResponse):
        read(*lines)


@pytest.mark.parametrize(
    ("version", "option", "keeps"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "Keep-Alive", True)],
)
def test_each_version_has_its_own_rule_of_persistence(version: str, option: str, keeps: bool) -> None:
    assert read(f"HTTP/{version} 200 OK", f"Connection: {option}").keep_alive is keeps


def test_the_client_gets_the_fields_without_those_of_one_hop_and_with_the_defaults() -> None:
    head = read(
        "HTTP/1.0 200 Fine", "A: b", "Connection: close, x-hop", "X-Hop: 1", "Keep-Alive: timeout=5", "Server: x"
    )
    assert head.status_line == b"HTTP/1.1 200 Fine"
    assert head.fields == b"\r\nA: b" + CORS_FIELDS + b"\r\nReferrer-Policy: same-origin"


def test_cors_fields_and_a_referrer_policy_of_the_backend_replace_the_defaults() -> None:
    head = read("HTTP/1.1 200 OK", "access-control-allow-origin: x", "referrer-policy: no-referrer")
    assert head.fields == b"\r\naccess-control-allow-origin: x\r\nreferrer-policy: no-referrer"


def test_an_interim_response_gets_no_defaults_and_no_framing() -> None:
    assert read("HTTP/1.1 103 Hints", "Link: a", "Content-Length: 5").fields == b"\r\nLink: a"


def test_an_announced_timeout_limits_the_reuse_of_the_connection() -> None:
    silent, announced = read("HTTP/1.1 200 OK"), read("HTTP/1.1 200 OK", "Keep-Alive: timeout=10, max=5")
    assert silent.unrepeatable_reuse_s < silent.reuse_s < announced.reuse_s < 10.0
    assert announced.unrepeatable_reuse_s == announced.reuse_s


def test_a_client_of_http_1_0_gets_no_field_about_chunks() -> None:
    assert (
        without_chunked_framing(b"\r\nA: b\r\nTRANSFER-ENCODING: chunked\r\ntrailer: c\r\nD: e") == b"\r\nA: b\r\nD: e"
    )


@pytest.mark.parametrize(
    ("part", "possible"),
    [(b"", True), (b"HTT", True), (b"HTTP/1.1 200 OK\r", True), (b"HTP", False), (b"HTTP/1.1\n", False)],
)
def test_a_part_that_cannot_become_a_head_is_recognized(part: bytes, possible: bool) -> None:
    assert could_become_head(part) is possible
