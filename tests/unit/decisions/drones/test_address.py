"""A drone at a loopback address whose controller is elsewhere is warned about (A22)."""

from __future__ import annotations

import pytest

from plane.decisions.drones.address import address_warning


@pytest.mark.parametrize(
    ("ip", "controller", "warned"),
    [
        ("127.0.0.1", "http://controller.example:8080", True),
        ("::1", "https://token@10.0.0.5", True),
        ("127.0.0.1", "http://127.0.0.1:8080", False),
        ("127.0.0.1", "ws://localhost:8080", False),
        ("127.0.0.1", "http://[::1]:8080", False),
        ("10.0.0.5", "http://controller.example:8080", False),
    ],
)
def test_a22_an_address_that_no_proxy_elsewhere_can_reach(ip: str, controller: str, warned: bool) -> None:
    warning = address_warning(ip, controller)
    assert (warning is not None) is warned
    assert warning is None or "--ip" in warning
