"""Where the body of a request ends."""

from __future__ import annotations

from plane.decisions.http.request_body import NO_BODY, RequestBody


def test_a_body_takes_only_its_own_bytes() -> None:
    body = RequestBody(5)
    assert (body.complete, body.take(b"abc"), body.complete) == (False, (b"abc", 3), False)
    assert (body.take(b"deGET"), body.complete) == ((b"de", 2), True)
    chunked = RequestBody(None)
    assert (chunked.take(b"1\r\na\r\n0\r\n\r\nGET"), chunked.complete) == ((b"1\r\na\r\n0\r\n\r\n", 11), True)
    assert NO_BODY.complete
    assert NO_BODY.take(b"GET") == (b"", 0)
