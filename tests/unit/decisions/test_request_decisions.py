"""Where a request leads, how far its body goes, what a Referer tells, in which form is answered, who is to blame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.http.error_format import ErrorFormat, error_format, is_navigation
from plane.decisions.http.limits import HttpLimits
from plane.decisions.http.request_body import NO_BODY, RequestBody
from plane.decisions.http.request_head import RequestReader, RequestRefused
from plane.decisions.http.stall_timeout import StallAction, stall_action
from plane.decisions.routing.host_names import HostNames
from plane.decisions.routing.referer import without_token
from plane.decisions.routing.request_target import RouteMatch, https_location, match_target

CLUSTER = b"plane.example"


@pytest.mark.parametrize(
    ("target", "host", "way"),
    [
        (b"/ready", b"anything", "ready"),
        (b"/", b"anything", "root"),
        (b"/?from=mail", CLUSTER, "root"),
        (b"/t/a?b", CLUSTER, RouteMatch("t", b"/a?b")),
        (b"/t", b"sub.PLANE.example:443", RouteMatch("t", b"/")),
        (b"/s.t/a", CLUSTER, RouteMatch("s.t", b"/s.t/a")),
        (b"/ready/x", CLUSTER, RouteMatch("ready", b"/x")),
        (b"/t/", b"elsewhere.example", 403),
        (b"/t/", b"notplane.example", 403),
        (b"/t/", b"plane.example:80", 403),
        (b"//x", CLUSTER, 410),
        (b"/" + b"a" * 300 + b"/", CLUSTER, 410),
    ],
)
def test_where_a_request_leads(target: bytes, host: bytes, way: object) -> None:
    assert match_target(target, host, CLUSTER) == way


@pytest.mark.parametrize(
    ("host", "name"), [(b"a.b:80", "a.b"), (b"a.b", "a.b"), (b"[::1]:80", "[::1]"), (b"[::1]", "[::1]")]
)
def test_a_redirect_names_the_host_without_its_port(host: bytes, name: str) -> None:
    assert https_location(b"/a?b", host) == f"https://{name}/a?b"


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (b"https://plane.example/token/a/b?c", b"https://plane.example/a/b?c"),
        (b"https://PLANE.example:443/token", b"https://PLANE.example:443/"),
        (b"https://sub.plane.example/token?x", b"https://sub.plane.example/?x"),
        (b"https://user@plane.example/token/a", b"https://user@plane.example/a"),
        (b"/token/a", b"/a"),
        (b"https://elsewhere.example/token/a", b"https://elsewhere.example/token/a"),
        (b"https://notplane.example/token/a", b"https://notplane.example/token/a"),
        (b"about:blank", b"about:blank"),
        (b"", b""),
    ],
)
def test_a_referer_does_not_tell_the_token(said: bytes, seen: bytes) -> None:
    assert without_token(said, HostNames(CLUSTER)) == seen


@given(st.text("abc/?#.:@", max_size=20), st.sampled_from(["http://plane.example", "HTTPS://x.plane.example", ""]))
def test_no_referer_of_ours_keeps_its_token(rest: str, origin: str) -> None:
    assert b"SECRET" not in without_token(f"{origin}/SECRET{rest}".encode(), HostNames(CLUSTER))


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (b"text/html,*/*;q=0.8", ErrorFormat.PAGE),
        (b"application/json, TEXT/HTML;q=0.5", ErrorFormat.PAGE),
        (b"text/html;q=0", ErrorFormat.JSON),
        (b"text/html;q=0.000, */*", ErrorFormat.JSON),
        (b"*/*", ErrorFormat.JSON),
        (b"application/json", ErrorFormat.JSON),
    ],
)
def test_only_who_names_html_gets_a_page(accept: bytes, form: ErrorFormat) -> None:
    lines = b"\r\nCookie: text/html\r\naccept: " + accept + b"\r\nX: y"
    assert error_format(lines) is form
    assert is_navigation(b"GET", lines) is (form is ErrorFormat.PAGE)
    assert not is_navigation(b"POST", lines)


def test_a_body_takes_what_belongs_to_it() -> None:
    body = RequestBody(5)
    assert (body.complete, body.take(b"abc"), body.complete) == (False, (b"abc", 3), False)
    assert (body.take(b"deGET"), body.complete) == ((b"de", 2), True)
    chunked = RequestBody(None)
    assert (chunked.take(b"1\r\na\r\n0\r\n\r\nGET"), chunked.complete) == ((b"1\r\na\r\n0\r\n\r\n", 11), True)
    assert NO_BODY.complete
    assert NO_BODY.take(b"GET") == (b"", 0)


def test_limits_are_settings() -> None:
    reader = RequestReader(HostNames(CLUSTER), HttpLimits(head_bytes=100, target_bytes=20, fields=2))
    for head, status in (
        (b"GET /t HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 100, 431),
        (b"GET /" + b"t" * 20 + b" HTTP/1.1\r\nHost: a", 414),
        (b"GET /t HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d", 431),
    ):
        with pytest.raises(RequestRefused) as refused:
            reader.read(head)
        assert refused.value.status == status


@pytest.mark.parametrize(
    ("with_backend", "begun", "ended", "reads", "expected"),
    [
        (True, False, False, True, StallAction.CLIENT_IS_SLOW),
        (True, False, False, False, StallAction.BACKEND_IS_SLOW),
        (True, True, False, True, StallAction.CUT),
        (True, False, True, True, StallAction.CUT),
        (False, False, False, True, StallAction.CUT),
    ],
)
def test_a_stalled_request_blames_the_side_that_stalls(
    *, with_backend: bool, begun: bool, ended: bool, reads: bool, expected: StallAction
) -> None:
    action = stall_action(with_backend=with_backend, response_begun=begun, client_ended=ended, backend_reads=reads)
    assert action is expected


def test_a_backend_that_stops_within_its_response_head_is_to_blame() -> None:
    verdict = stall_action(
        with_backend=True, response_begun=False, client_ended=False, backend_reads=True, response_head_begun=True
    )
    assert verdict is StallAction.BACKEND_IS_SLOW
