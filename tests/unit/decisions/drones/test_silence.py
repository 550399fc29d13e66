from __future__ import annotations

import pytest

from plane.decisions.drones.silence import SilentDrone, is_lost


@pytest.mark.parametrize(
    ("stopped", "has_backends", "lost"),
    [(False, False, True), (False, True, True), (True, True, True), (True, False, False)],
)
def test_a_silent_drone_is_lost_unless_it_stopped_without_backends(
    stopped: bool, has_backends: bool, lost: bool
) -> None:
    assert is_lost(SilentDrone(1, "dr-a", stopped, has_backends)) is lost
