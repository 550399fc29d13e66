"""Where a request leads before any route is known."""

from __future__ import annotations

import pytest

from plane.decisions.routing.request_target import RouteMatch, https_location, match_target

CLUSTER = b"plane.example"


@pytest.mark.parametrize(
    ("target", "host", "expected"),
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
def test_a_target_and_its_host_lead_to_one_place(target: bytes, host: bytes, expected: object) -> None:
    assert match_target(target, host, CLUSTER) == expected


@pytest.mark.parametrize(
    ("host", "name"), [(b"a.b:80", "a.b"), (b"a.b", "a.b"), (b"[::1]:80", "[::1]"), (b"[::1]", "[::1]")]
)
def test_a_redirect_names_the_host_without_its_port(host: bytes, name: str) -> None:
    assert https_location(b"/a?b", host) == f"https://{name}/a?b"
