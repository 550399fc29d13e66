"""When a drone warns that the processes which it runs can control the cluster."""

from __future__ import annotations

import pytest

from plane.decisions.drones.open_controller import open_controller_warning


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
def test_only_processes_beside_a_controller_without_keys_are_warned_of(
    url: str, has_key: bool, runs_processes: bool, warns: bool
) -> None:
    assert (open_controller_warning(url, has_key=has_key, runs_processes=runs_processes) is not None) is warns
