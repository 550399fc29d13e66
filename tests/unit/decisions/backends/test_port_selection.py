"""Which ports backends get, and in which order they are tried."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.backends.port_selection import PortRange, default_port_range, parse_port_range, port_candidates
from plane.protocol.errors import ConfigurationError
from plane.timing import PORT_MIN_QUARANTINE_S, PORT_QUARANTINE_S

PORTS = PortRange(100, 119)
NUMBERS = st.integers(95, 125)


@given(
    NUMBERS,
    st.sets(NUMBERS),
    st.dictionaries(NUMBERS, st.floats(0, 2 * PORT_QUARANTINE_S)),
)
def test_candidates_are_free_and_ordered_by_quarantine(
    after: int, in_use: set[int], ended_s_ago: dict[int, float]
) -> None:
    now = 1_000.0
    ended_at = {port: now - ago for port, ago in ended_s_ago.items()}
    found = list(port_candidates(PORTS, after, in_use, ended_at, now))
    assert len(set(found)) == len(found)
    rested = {port: now - ended_at.get(port, 0.0) for port in range(100, 120) if port not in in_use}
    assert set(found) == {port for port, rest in rested.items() if rest >= PORT_MIN_QUARANTINE_S}
    fresh = [port for port in found if rested[port] >= PORT_QUARANTINE_S]
    resting = found[len(fresh) :]
    # Those that rest come last, the one that has rested longest first; the others in a circle behind the last one.
    assert found[: len(fresh)] == fresh
    assert [rested[port] for port in resting] == sorted((rested[port] for port in resting), reverse=True)
    begin = after + 1 if 100 <= after < 119 else 100
    assert fresh == sorted(fresh, key=lambda port: (port - begin) % 20)


@given(st.integers(1, 65_535), st.integers(1, 65_535))
def test_the_default_range_leaves_out_outgoing_connections(one: int, other: int) -> None:
    outgoing = PortRange(min(one, other), max(one, other))
    ports = default_port_range(outgoing)
    assert 10_000 <= ports.first <= ports.last <= 65_535
    if len(outgoing) <= 50_000:
        assert len(ports) >= 1_000
        assert ports.last < outgoing.first or ports.first > outgoing.last


@pytest.mark.parametrize(
    ("outgoing", "ports"),
    [
        ((32_768, 60_999), (20_000, 29_999)),
        ((25_000, 65_535), (20_000, 24_999)),
        ((15_000, 61_000), (10_000, 14_999)),
        ((1_024, 60_000), (60_001, 65_535)),
        ((1_024, 65_535), (20_000, 29_999)),
    ],
)
def test_default_ranges(outgoing: tuple[int, int], ports: tuple[int, int]) -> None:
    assert default_port_range(PortRange(*outgoing)) == PortRange(*ports)


def test_a_range_is_parsed_or_refused() -> None:
    assert parse_port_range("20000-20010") == PortRange(20_000, 20_010)
    for text in ("", "1", "2-1", "0-5", "1-65536", "a-b", "1-2-3", "-5-6"):
        with pytest.raises(ConfigurationError, match="--backend-ports"):
            parse_port_range(text)
