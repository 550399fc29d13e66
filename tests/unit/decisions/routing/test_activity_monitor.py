"""When a backend that is in use gets a keepalive."""

from __future__ import annotations

from plane.decisions.routing.activity_monitor import ActivityMonitor
from plane.timing import HEARTBEAT_INTERVAL_S


def test_a_tunnel_causes_a_keepalive_each_interval_and_one_when_it_ends() -> None:
    monitor = ActivityMonitor()
    assert monitor.use_started("b", 0.0) is True
    sent = [now / 2 for now in range(1, 41) if monitor.poll(now / 2)]
    assert sent == [HEARTBEAT_INTERVAL_S * number for number in range(1, 5)]
    monitor.use_ended("b")
    polls = [monitor.poll(20.5 + n / 2) for n in range(6)]
    assert polls.count(["b"]) == 1
    assert monitor.in_use() == []


def test_a_burst_of_requests_causes_a_keepalive_at_once_and_one_at_its_end() -> None:
    monitor = ActivityMonitor()
    due = [monitor.use_started("b", 0.0) for _ in range(3)]
    assert due == [True, False, False]
    for _ in range(3):
        monitor.use_ended("b")
    polls = [monitor.poll(0.5 * n) for n in range(1, 6)]
    assert polls.count(["b"]) == 1
