"""Fuzzing of what reads bytes of strangers: the heads, the chunks, and the head that a backend gets.

`make fuzz` runs it for two minutes; a whole test run for a moment. Inputs are pieces of HTTP put together at random,
which reach deeper than random bytes. Whatever is accepted must be read by `h11` in the same way: a difference between
two readers is what smuggling is made of. What was found here, or was hostile elsewhere, is kept in
``found/`` and tried again by every run.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plane.decisions.http.chunks import ChunkScanner, MalformedChunks
from plane.decisions.http.request_head import RequestReader, RequestRefused
from plane.decisions.http.response_head import UNTIL_CLOSE, InvalidResponse, read_response_head
from plane.decisions.http.shared_origin import DROPPED_FIELDS
from plane.decisions.routing.host_names import HostNames
from plane.decisions.routing.request_target import RouteMatch, match_target
from plane.decisions.routing.rewrite import forwarded_head, make_route, origin_form
from plane.protocol.proxy_messages import RouteInfo

SECONDS = float(os.environ.get("FUZZ_SECONDS", "1"))
FOUND = Path(__file__).parent / "found"
CLUSTER = b"c:1"
ROUTE = make_route(
    "t", RouteInfo(backend_id="b", address="127.0.0.1:1", secret_token="s", cluster="c:1", user="ann"), b""
)
CLIENT_FIELDS = b"\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: http"

PIECES = st.one_of(
    st.sampled_from(
        [
            b"GET",
            b"POST",
            b"HEAD",
            b" ",
            b"  ",
            b"\t",
            b"/",
            b"/t/",
            b"/t",
            b"*",
            b"http://c:1/t/",
            b"?a=b",
            b"#",
            b"%00",
            b" HTTP/1.1",
            b" HTTP/1.0",
            b" HTTP/2.0",
            b"\r\n",
            b"\n",
            b"\r",
            b"\r\n ",
            b"\0",
            b"\x0b",
            b"\x85",
            b"\xa0",
            b"\xff",
            b"Host: c:1",
            b"Host:c:1 ",
            b"host: other",
            b":",
            b": ",
            b" :",
            b";",
            b",",
            b"=",
            b'"',
            b"Content-Length: ",
            b"content-length:",
            b"0",
            b"1",
            b"5",
            b"00",
            b"+5",
            b"-1",
            b"0x5",
            b"5_0",
            b"a",
            b"FF",
            b"Transfer-Encoding: ",
            b"transfer_encoding: ",
            b"chunked",
            b"Chunked",
            b"identity",
            b"gzip, chunked",
            b"Connection: ",
            b"close",
            b"keep-alive",
            b"upgrade",
            b"x-verified-username",
            b"Upgrade: websocket",
            b"X-Verified-Username: eve",
            b"x_verified_username: eve",
            b"X.Verified~Username: eve",
            b"Forwarded: for=6.6.6.6",
            b"x.real_ip: 6.6.6.6",
            b"X_Forwarded-For: 6.6.6.6",
            b"Referer: http://c:1/t/",
            b"Trailer: x",
            b"TE: trailers",
            b"Expect: 100-continue",
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 101 x",
            b"HTTP/1.0 204 ",
            b"HTTP/1.1 304",
            b"Service-Worker-Allowed: /",
            b"clear-site-data:*",
            b"Server: x",
            b"Access-Control-Allow-Origin: *",
            b"hello",
            b"\r\nhello\r\n",
            b"0\r\n\r\n",
            b"5;a=b",
        ]
    ),
    st.binary(min_size=1, max_size=3),
)
SOUP = st.lists(PIECES, max_size=30).map(b"".join)
# Mostly well-formed, so that what is accepted is met often.
NAMES = st.sampled_from(
    [
        b"Host",
        b"A",
        b"Cookie",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Upgrade",
        b"X-Verified-Username",
        b"x_verified-Username",
        b"X-Forwarded-For",
        b"x_forwarded_proto",
        b"x.forwarded|for",
        b"TE",
        b"Referer",
        b"Keep-Alive",
        b"Expect",
        b"service-worker-Allowed",
        b"NEL",
    ]
)
FIELDS = st.lists(st.tuples(NAMES, st.sampled_from([b":", b": ", b":\t", b" :"]), SOUP), max_size=6)
HEADS = st.one_of(
    SOUP,
    st.builds(
        lambda line, fields: line + b"\r\nHost: c:1" + b"".join(b"\r\n" + name + c + v for name, c, v in fields),
        st.sampled_from(
            [b"GET /t/ HTTP/1.1", b"POST /t/a?b HTTP/1.1", b"GET /t HTTP/1.0", b"GET http://c:1/t/ HTTP/1.1"]
        ),
        FIELDS,
    ),
)
ANSWERS = st.one_of(
    SOUP,
    st.builds(
        lambda line, fields: line + b"".join(b"\r\n" + name + c + v for name, c, v in fields),
        st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1 204 ", b"HTTP/1.1 304 x", b"HTTP/1.1 404 "]),
        FIELDS,
    ),
)


def check_request(head: bytes) -> None:
    """RequestRefused, or the same for `h11`, before and after it was written anew."""
    reader = RequestReader(HostNames(CLUSTER))
    try:
        read = reader.read(head)
        target = origin_form(read)
    except RequestRefused:
        return
    theirs, length = as_h11_reads_a_request(head + b"\r\n\r\n")
    assert (theirs.method, theirs.target) == (read.method, read.target)
    assert length == read.fields.length
    way = match_target(target, read.fields.host, CLUSTER)
    if not isinstance(way, RouteMatch):
        return
    read.target = target
    written = forwarded_head(read, way.forwarded, ROUTE, CLIENT_FIELDS)
    seen, seen_length = as_h11_reads_a_request(written)
    assert (seen.method, seen.target, seen_length) == (read.method, way.forwarded, length)
    names = [re.sub(rb"[^a-z0-9]+", b"-", name) for name, _ in seen.headers]
    for name, value in (
        (b"x-verified-username", b"ann"),
        (b"x-verified-secret", b"s"),
        (b"x-verified-backend", b"b"),
        (b"x-verified-path", target.partition(b"?")[0]),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"x-forwarded-proto", b"http"),
    ):
        assert names.count(name) == 1
        assert dict(seen.headers)[name] == value
    assert not {b"te", b"keep-alive", b"proxy-connection"} & set(names)


def as_h11_reads_a_request(data: bytes) -> tuple[h11.Request, int | None]:
    """The request, and how long its body is: bytes, None for chunked."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
    connection.receive_data(data)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    headers = dict(request.headers)
    return request, None if b"transfer-encoding" in headers else int(headers.get(b"content-length", b"0"))


def check_chunks(body: bytes) -> None:
    """However it is cut, it is taken or refused alike; and where it ends, `h11` says so too."""
    verdicts = {scan(body, size) for size in (len(body) or 1, 1, 2, 7)}
    assert len(verdicts) == 1
    (verdict,) = verdicts
    if not isinstance(verdict, int):
        return
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    if SPACE_BEFORE_EXTENSION.search(body):
        # RFC 9112, section 7.1.1, has a recipient take it; h11 does not.
        return
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA
    assert connection.trailing_data[0] == body[verdict:]


def scan(body: bytes, size: int) -> int | str:
    """Length of the body, or what became of it instead."""
    scanner, taken = ChunkScanner(), 0
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        try:
            _, part = scanner.feed(piece)
        except MalformedChunks:
            return "refused"
        assert 0 <= part <= len(piece)
        taken += part
        if scanner.done:
            return taken
        assert part == len(piece)
    return "incomplete"


def check_answer(head: bytes) -> None:
    """RequestRefused, or of the same length for `h11`; no framing is said twice, and nothing for the whole origin."""
    try:
        read = read_response_head(head, to_head_request=False)
    except InvalidResponse:
        return
    names = {line.partition(b":")[0].lower() for line in read.fields.split(b"\r\n")}
    assert not names & DROPPED_FIELDS
    if read.status < 200 or read.status == 204:
        assert not names & {b"content-length", b"transfer-encoding"}
    if read.status < 200:
        return
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(read.status_line + read.fields + b"\r\n\r\n")
    response = connection.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == read.status
    headers = dict(response.headers)
    if read.length is None:
        assert headers[b"transfer-encoding"].lower() == b"chunked"
    elif read.length not in (0, UNTIL_CLOSE):
        assert int(headers[b"content-length"]) == read.length


SPACE_BEFORE_EXTENSION = re.compile(rb"[0-9A-Fa-f][ \t]+;")
ENDS = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b"", b"XX", b"\r\n\r\n"])
SIZES = st.sampled_from(
    [b"5"] * 4 + [b"05", b"5;a=b", b"5 ;a", b"5\t;a", b"5;", b"+5", b"0x5", b"5 ", b"A", b"0", b"ffffffffffffffff"]
)
CHUNKS = st.builds(
    lambda chunks, last, trailers, end: (
        b"".join(size + first + b"hello" + second for size, first, second in chunks) + last + b"\r\n" + trailers + end
    ),
    st.lists(st.tuples(SIZES, ENDS, ENDS), max_size=4),
    st.sampled_from([b"0", b"000", b"0;a=b", b"-0", b"0 "]),
    st.one_of(st.just(b""), FIELDS.map(lambda fields: b"".join(name + c + v + b"\r\n" for name, c, v in fields)), SOUP),
    st.one_of(st.just(b"\r\n"), SOUP.map(lambda soup: b"\r\n" + soup), SOUP),
)


CHECKS: dict[str, tuple[Callable[[bytes], None], st.SearchStrategy[bytes]]] = {
    "request": (check_request, HEADS),
    "chunks": (check_chunks, st.one_of(SOUP, CHUNKS)),
    "answer": (check_answer, ANSWERS),
}


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("what", CHECKS)
def test_whatever_is_sent(what: str) -> None:
    check, inputs = CHECKS[what]

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def some(data: bytes) -> None:
        check(data)

    end = time.monotonic() + SECONDS
    while True:
        some()
        if time.monotonic() >= end:
            break


@pytest.mark.parametrize("path", sorted(FOUND.glob("*")), ids=lambda path: path.name)
def test_what_was_found_once(path: Path) -> None:
    check, _ = CHECKS[path.name.split("-")[0]]
    check(path.read_bytes())
