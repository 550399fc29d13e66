"""A read that does not follow the output ends at the line that was the newest when it began."""

from __future__ import annotations

from plane.decisions.backends.log_selection import BoundedLogRead
from plane.protocol.logs import LogLine


def lines(first: int, last: int) -> list[LogLine]:
    return [LogLine(time_ns, "x") for time_ns in range(first, last + 1)]


def test_a_read_of_a_flood_ends_at_the_line_that_was_newest_at_first() -> None:
    reading = BoundedLogRead(None)
    assert reading.select(lines(1, 10)) == lines(1, 10)
    assert not reading.has_ended
    reading.end_ns = 25
    assert reading.select(lines(11, 20)) == lines(11, 20)
    assert not reading.has_ended
    assert reading.select(lines(21, 30)) == lines(21, 25)
    assert reading.has_ended


def test_a_read_has_no_more_lines_than_its_tail() -> None:
    reading = BoundedLogRead(15)
    assert reading.select(lines(1, 10)) == lines(1, 10)
    reading.end_ns = 100
    assert reading.select(lines(11, 20)) == lines(11, 15)
    assert reading.has_ended


def test_a_read_ends_when_nothing_is_left_and_when_nothing_was_requested() -> None:
    reading = BoundedLogRead(15)
    assert reading.select([]) == []
    assert reading.has_ended
    reading = BoundedLogRead(0)
    assert reading.select(lines(1, 2)) == []
    assert reading.has_ended
    reading = BoundedLogRead(None)
    reading.select(lines(1, 2))
    reading.end_ns = 50
    # Older lines were dropped, and none as old is left.
    assert reading.select(lines(51, 60)) == []
    assert reading.has_ended
