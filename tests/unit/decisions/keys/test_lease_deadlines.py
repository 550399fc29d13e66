"""The deadlines of a lease (A1: the first one has its hard deadline after its soft one too)."""

from __future__ import annotations

from plane.decisions.keys.lease_deadlines import lease_deadlines
from plane.protocol.times import DroneTime


def test_a1_hard_deadline_is_fifty_seconds_after_the_start() -> None:
    deadlines = lease_deadlines(DroneTime(1000))
    assert deadlines.renew_at == DroneTime(31_000)
    assert deadlines.soft_terminate_at == DroneTime(41_000)
    assert deadlines.hard_terminate_at == DroneTime(51_000)
