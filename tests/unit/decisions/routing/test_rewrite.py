"""The head that a backend gets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.http.request_head import (
    RequestReader,
)
from plane.decisions.routing.host_names import HostNames
from plane.decisions.routing.rewrite import forwarded_head, make_route
from plane.protocol.errors import MessageError
from plane.protocol.proxy_messages import RouteInfo

INFO = RouteInfo(
    backend_id="b", address="127.0.0.1:1", secret_token="secret", cluster="c:1", user="ann", user_data={"ü": "\x7f"}
)


ROUTE = make_route("t", INFO, b"\r\nserver: x")


NAMES = st.sampled_from(
    ["x-verified-username", "X_Verified_Username", "x-Verified_secret", "X-FORWARDED-FOR", "x_forwarded_proto",
     "x-verified-path", "Accept", "Cookie", "Connection", "Keep-Alive", "x-custom"]
)  # fmt: skip


VALUES = st.sampled_from(["forged", "close", "x-verified-username, x-custom", "x-forwarded-for", "a, b"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_a_backend_gets_each_field_of_the_proxy_once_with_the_proxys_value(fields: list[tuple[str, str]]) -> None:
    lines = "".join(f"\r\n{name}: {value}" for name, value in fields)
    head = RequestReader(HostNames(b"c:1")).read(f"GET /t/p HTTP/1.1\r\nHost: c:1{lines}".encode())
    seen = forwarded_head(head, b"/p", ROUTE, b"\r\nx-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: http").decode()
    for name, value in (
        ("x-verified-username", "ann"),
        ("x-verified-secret", "secret"),
        ("x-verified-backend", "b"),
        ("x-verified-path", "/t/p"),
        ("x-verified-user-data", '{"\\u00fc":"\\u007f"}'),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "http"),
    ):
        pattern = re.escape(name).replace("\\-", "[-_]")
        found = re.findall(rf"\r\n(?i:{pattern}): ?([^\r\n]*)", seen)
        assert found == [value], name
    assert seen.isascii()


def test_a_route_with_a_value_that_no_field_can_carry_is_refused() -> None:
    with pytest.raises(MessageError, match="x-verified-username"):
        make_route(
            "t", RouteInfo(backend_id="b", address="127.0.0.1:1", secret_token="", cluster="c", user="a\nb"), b""
        )
