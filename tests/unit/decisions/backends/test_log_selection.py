"""A reading of output that is not followed ends at what there was when it began."""

from __future__ import annotations

from plane.decisions.backends.log_selection import BoundedLogRead
from plane.protocol.logs import LogLine


def lines(first: int, last: int) -> list[LogLine]:
    return [LogLine(time_ns, "x") for time_ns in range(first, last + 1)]


def test_all_of_a_flood_up_to_its_newest_line_at_first() -> None:
    reading = BoundedLogRead(None)
    assert reading.take(lines(1, 10)) == lines(1, 10)
    assert not reading.has_ended
    reading.end_ns = 25
    assert reading.take(lines(11, 20)) == lines(11, 20)
    assert not reading.has_ended
    assert reading.take(lines(21, 30)) == lines(21, 25)
    assert reading.has_ended


def test_no_more_than_the_wanted_lines() -> None:
    reading = BoundedLogRead(15)
    assert reading.take(lines(1, 10)) == lines(1, 10)
    reading.end_ns = 100
    assert reading.take(lines(11, 20)) == lines(11, 15)
    assert reading.has_ended


def test_nothing_more_and_nothing_at_all_are_ends() -> None:
    reading = BoundedLogRead(15)
    assert reading.take([]) == []
    assert reading.has_ended
    reading = BoundedLogRead(0)
    assert reading.take(lines(1, 2)) == []
    assert reading.has_ended
    reading = BoundedLogRead(None)
    reading.take(lines(1, 2))
    reading.end_ns = 50
    # Older lines were dropped, and none as old is left.
    assert reading.take(lines(51, 60)) == []
    assert reading.has_ended
