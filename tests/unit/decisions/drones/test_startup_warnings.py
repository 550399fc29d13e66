"""The warnings about its address and its controller that a drone logs when it starts."""

from __future__ import annotations

import pytest

from plane.decisions.drones.startup_warnings import is_open_to_backends, is_unreachable_address


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
def test_a_loopback_address_is_warned_about_if_the_controller_is_elsewhere(
    ip: str, controller: str, warned: bool
) -> None:
    assert is_unreachable_address(ip, controller) is warned


@pytest.mark.parametrize(
    ("url", "has_key", "runs_processes", "warns"),
    [
        ("http://127.0.0.1:8080", False, True, True),
        ("http://localhost:8080", False, True, True),
        ("http://[::1]:8080", False, True, True),
        ("http://127.0.0.1:8080", True, True, False),
        ("http://127.0.0.1:8080", False, False, False),
        ("http://10.0.0.1:8080", False, True, False),
        ("http://controller:8080", False, True, False),
    ],
)
def test_processes_beside_a_controller_without_keys_are_warned_about(
    url: str, has_key: bool, runs_processes: bool, warns: bool
) -> None:
    assert is_open_to_backends(url, has_key=has_key, runs_processes=runs_processes) is warns
