"""Only one plain POST is simple, and whatever is called so is read by h11 in the same way."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.http.fast_path_request import HEAD_LIMIT_BYTES, FastPathRequest, read_fast_path_request
from plane.decisions.http.request_source import RequestSource

LINE = b"POST /ctrl/connect HTTP/1.1\r\n"
NEEDED = (b"Host: plane", b"Content-Type: application/json", b"Content-Length: 2")


def request(*more: bytes, line: bytes = LINE, needed: tuple[bytes, ...] = NEEDED, body: bytes = b"{}") -> bytes:
    return line + b"".join(field + b"\r\n" for field in (*needed, *more)) + b"\r\n" + body


@pytest.mark.parametrize(
    "more",
    [
        (),
        (b"Accept: */*", b"User-Agent: x/1", b"Accept-Encoding: gzip", b"Connection: keep-alive"),
        (b"connection:Keep-Alive",),
        (b"accept-language: *", b"sec-fetch-mode: cors"),
    ],
)
def test_a_plain_request_is_on_the_fast_path(more: tuple[bytes, ...]) -> None:
    assert read_fast_path_request(request(*more)) == FastPathRequest(
        "/ctrl/connect", RequestSource("plane"), None, b"{}"
    )


def test_a_body_may_be_on_its_way() -> None:
    assert read_fast_path_request(request(body=b"")) == FastPathRequest(
        "/ctrl/connect", RequestSource("plane"), None, b""
    )


def test_credentials_are_handed_on() -> None:
    found = read_fast_path_request(request(b"Authorization:  Bearer a b "))
    assert found is not None
    assert found.authorization == "Bearer a b"


@pytest.mark.parametrize("place", range(3))
def test_each_needed_field_is_needed_once(place: int) -> None:
    assert read_fast_path_request(request(needed=NEEDED[:place] + NEEDED[place + 1 :])) is None
    assert read_fast_path_request(request(NEEDED[place])) is None


@pytest.mark.parametrize(
    "unusual",
    [
        request(b"Transfer-Encoding: chunked"),
        request(b"Expect: 100-continue"),
        request(b"Connection: close"),
        request(b"Connection: keep-alive, upgrade"),
        request(b"Upgrade: websocket"),
        request(b"Content-Encoding: gzip"),
        request(b"Origin: http://example"),
        request(b"X-Other: 1"),
        request(b"Accept:"),
        request(b"Accept : a"),
        request(b"Accept: a\r\n b"),
        request(b"Accept: a\tb"),
        request(b"Accept: \xe4"),
        request(b"Accept: a\nHost: b"),
        request(b"Accept: a\x00"),
        request(b"User-Agent: " + b"x" * HEAD_LIMIT_BYTES),
        request(line=b"GET /ctrl/connect HTTP/1.1\r\n"),
        request(line=b"POST /ctrl/connect HTTP/1.0\r\n"),
        request(line=b"POST /ctrl/connect?a HTTP/1.1\r\n"),
        request(line=b"POST http://plane/ctrl/connect HTTP/1.1\r\n"),
        request(line=b"POST  /ctrl/connect HTTP/1.1\r\n"),
        request(line=b"\r\n" + LINE),
        request(body=b"{"),
        request(body=b"{} "),
        request(body=b"{}" + request()),
        request(needed=(b"Host: plane", b"Content-Type: text/plain", b"Content-Length: 2")),
        request(needed=(b"Host: plane", b"Content-Type: application/json; charset=latin-1", b"Content-Length: 2")),
        request(needed=(b"Host: pl ane", b"Content-Type: application/json", b"Content-Length: 2")),
        request(needed=(b"Host: plane", b"Content-Type: application/json", b"Content-Length: +2")),
        request(needed=(b"Host: plane", b"Content-Type: application/json", b"Content-Length: 02")),
        request(needed=(b"Host: plane", b"Content-Type: application/json", b"Content-Length: 0"), body=b""),
        b"",
        LINE,
    ],
)
def test_anything_unusual_is_not_simple(unusual: bytes) -> None:
    assert read_fast_path_request(unusual) is None


FIELD = st.sampled_from(
    [
        *NEEDED,
        b"Content-Length: 3",
        b"content-length:2 ",
        b"Content-Length: 2, 2",
        b"Transfer-Encoding: chunked",
        b"Connection: keep-alive",
        b"Connection: close",
        b"Accept: a",
        b" Accept: a",
        b"Expect: 100-continue",
        b"Authorization: Bearer x",
        b"",
    ]
)


@given(fields=st.lists(FIELD, max_size=6), body=st.sampled_from([b"", b"{}", b"{}\n", b"{}" + request()]))
def test_what_is_simple_is_so_for_others_too(fields: list[bytes], body: bytes) -> None:
    _compare(request(*fields, needed=NEEDED[:2], body=body))


@given(place=st.integers(0, len(request()) - 1), new=st.binary(max_size=3), cut=st.integers(0, 3))
def test_no_change_of_a_few_bytes_makes_others_read_something_else(place: int, new: bytes, cut: int) -> None:
    good = request(b"Authorization: x")
    _compare(good[:place] + new + good[place + cut :])


def _compare(data: bytes) -> None:
    found = read_fast_path_request(data)
    if found is None:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(data)
    head = other.next_event()
    assert isinstance(head, h11.Request)
    body = b""
    while isinstance(event := other.next_event(), h11.Data):
        body += event.data
    assert (head.method, head.target, head.http_version) == (b"POST", found.path.encode(), b"1.1")
    assert body == found.body
    assert other.trailing_data == (b"", False)
    assert isinstance(event, h11.EndOfMessage) if found.body else event is h11.NEED_DATA
    assert other.their_state is (h11.DONE if found.body else h11.SEND_BODY)
    assert found.source == RequestSource(dict(head.headers)[b"host"].decode())
    authorization = dict(head.headers).get(b"authorization")
    assert authorization == (None if found.authorization is None else found.authorization.encode())
