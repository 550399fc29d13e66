"""Connections without a request are bounded per source and in total; the oldest goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.http.unproven_connections import UnprovenConnections, unproven_limit


def test_the_limit_is_a_share_of_the_open_files() -> None:
    assert unproven_limit(1024) == 256
    assert unproven_limit(1 << 30) == 1024
    assert unproven_limit(1) == 1


def test_the_oldest_of_a_source_with_too_many_goes() -> None:
    connections: UnprovenConnections[int] = UnprovenConnections(8)
    assert connections.add(0, "other") is None
    assert [connections.add(number, "loud") for number in (1, 2, 3)] == [None, None, 1]
    connections.remove(1)
    assert connections.add(4, "loud") == 2


def test_the_oldest_of_all_goes_where_there_are_many_sources() -> None:
    connections: UnprovenConnections[int] = UnprovenConnections(4)
    assert [connections.add(number, str(number)) for number in range(5)] == [None, None, None, None, 0]


def test_one_that_has_sent_its_request_counts_no_more() -> None:
    connections: UnprovenConnections[int] = UnprovenConnections(1)
    assert connections.add(0, "a") is None
    connections.remove(0)
    connections.remove(0)
    assert connections.add(1, "a") is None
    assert 0 not in connections
    assert 1 in connections


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 3)), max_size=200), st.integers(1, 20))
def test_never_more_than_the_limits(steps: list[tuple[bool, int, int]], limit: int) -> None:
    connections: UnprovenConnections[int] = UnprovenConnections(limit)
    source_of: dict[int, int] = {}
    for opens, connection, source in steps:
        if not opens:
            connections.remove(connection)
            source_of.pop(connection, None)
        elif connection not in connections:
            source_of[connection] = source
            if (oldest := connections.add(connection, str(source))) is not None:
                connections.remove(oldest)
                del source_of[oldest]
        assert len(connections) == len(source_of) <= limit
        of_source = [list(source_of.values()).count(each) for each in range(4)]
        assert max(of_source) <= max(1, limit // 4)
