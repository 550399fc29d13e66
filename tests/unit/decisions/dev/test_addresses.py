from __future__ import annotations

import pytest

from plane.decisions.dev.addresses import proxy_address


@pytest.mark.parametrize(
    ("localhost", "has_ipv6", "address"),
    [
        ({"127.0.0.1"}, True, "127.0.0.1"),
        ({"127.0.0.1", "::1"}, True, "127.0.0.1"),
        ({"::1"}, True, "::1"),
        ({"::1"}, False, "127.0.0.1"),
        (set(), True, "127.0.0.1"),
        ({"127.0.1.1"}, True, "127.0.0.1"),
    ],
)
def test_proxy_listens_where_clients_resolve_localhost(localhost: set[str], has_ipv6: bool, address: str) -> None:
    assert proxy_address(localhost, has_ipv6=has_ipv6) == address
