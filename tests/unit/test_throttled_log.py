"""A warning that comes very often is said seldom, and counts what was not said."""

from __future__ import annotations

from typing import Any

import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from plane.throttled_log import ThrottledWarning, ThrottledWarnings
from plane.timing import WARNING_INTERVAL_S

log = structlog.get_logger("test")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_is_said_and_then_one_a_minute_and_the_rest_at_the_end() -> None:
    clock = Clock()
    with capture_logs() as logs:
        warning = ThrottledWarning(log, "odd", clock=clock, peer="p")
        for number in range(4):
            warning.warn(error=number)
        assert [entry["count"] for entry in logs] == [1]
        clock.now += WARNING_INTERVAL_S
        warning.warn(error="later")
        warning.warn(error="last")
        warning.end()
        warning.end()
    assert [(entry["event"], entry["peer"], entry["error"], entry["count"]) for entry in logs] == [
        ("odd", "p", 0, 1),
        ("odd", "p", "later", 4),
        ("odd", "p", "last", 1),
    ]
    assert {entry["log_level"] for entry in logs} == {"warning"}


def test_nothing_is_said_of_what_never_happened() -> None:
    with capture_logs() as logs:
        ThrottledWarning(log, "odd").end()
    assert logs == []


@given(st.lists(st.floats(min_value=0, max_value=100, allow_nan=False), max_size=50))
def test_none_is_forgotten_and_few_are_said(pauses_s: list[float]) -> None:
    clock = Clock()
    said: list[Any] = []
    with capture_logs() as logs:
        warning = ThrottledWarning(log, "odd", clock=clock)
        for pause_s in pauses_s:
            clock.now += pause_s
            warning.warn()
        said = list(logs)
        warning.end()
    assert sum(entry["count"] for entry in logs) == len(pauses_s)
    assert len(said) <= 1 + sum(pauses_s) / WARNING_INTERVAL_S


def test_each_name_is_said_once_a_minute_and_many_names_share_one_line() -> None:
    clock = Clock()
    with capture_logs() as logs:
        warnings = ThrottledWarnings(log, "odd", names_limit=2, clock=clock)
        for name in ("a", "b", "a", "c", "d", "c"):
            warnings.warn(name, said=name)
        assert [(entry["said"], entry["count"], "many_names" in entry) for entry in logs] == [
            ("a", 1, False),
            ("b", 1, False),
            ("c", 1, True),
        ]
        clock.now += WARNING_INTERVAL_S
        warnings.warn("a", said="a")
        warnings.warn("e", said="e")
        warnings.warn("f", said="f")
    # The place of "b", which has not warned for a minute, is free; then both are taken again.
    assert [(entry["said"], entry["count"], "many_names" in entry) for entry in logs[3:]] == [
        ("a", 2, False),
        ("e", 1, False),
        ("f", 3, True),
    ]
