"""Decide which port the next backend gets: a range that outgoing connections do not use, and an order in it.

The port of an ended backend is quarantined: a proxy that does not know of the end yet must not reach another backend
there. `plane.runtime.network.ports` locks the ports and checks what the machine uses.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from plane.protocol.errors import ConfigurationError
from plane.timing import PORT_MIN_QUARANTINE_S, PORT_QUARANTINE_S

__all__ = ["PortRange", "default_port_range", "parse_port_range", "port_candidates"]

# Above the ports that servers usually listen on, below those of Kubernetes services (30000) and of Linux's outgoing
# connections (32768). Enough for 55 starts a second with a quarantine of three minutes.
PREFERRED_FIRST, PREFERRED_LAST = 20_000, 29_999
# The range to search if outgoing connections use the preferred ports. A smaller part than this is not used.
LOWEST, HIGHEST = 10_000, 65_535
SMALLEST_COUNT = 1_000


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from ``first`` to ``last``, both included."""

    first: int
    last: int

    def __len__(self) -> int:
        return max(0, self.last - self.first + 1)

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def default_port_range(outgoing: PortRange) -> PortRange:
    """Return the range for backends, given the range that the kernel takes for outgoing connections.

    Otherwise an outgoing connection could take a port between its allocation and the time when the backend listens.
    If outgoing connections use nearly all ports, the preferred range is returned all the same.
    """
    for low, high in ((PREFERRED_FIRST, PREFERRED_LAST), (LOWEST, HIGHEST)):
        parts = (PortRange(low, min(high, outgoing.first - 1)), PortRange(max(low, outgoing.last + 1), high))
        largest = max(parts, key=len)
        if len(largest) >= SMALLEST_COUNT:
            return largest
    return PortRange(PREFERRED_FIRST, PREFERRED_LAST)


def parse_port_range(text: str) -> PortRange:
    """Parse ``FIRST-LAST``.

    Raises:
        ConfigurationError: the text is not a range of ports.
    """
    first, dash, last = text.partition("-")
    if dash and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= HIGHEST:
        return PortRange(int(first), int(last))
    raise ConfigurationError(f"--backend-ports: {text!r} is not a range of ports; write it as 20000-29999")


def port_candidates(
    ports: PortRange, after: int, in_use: Container[int], ended_at: Mapping[int, float], now: float
) -> Iterator[int]:
    """Yield the ports to try, best first.

    First those that are not quarantined, in a circle that begins after ``after``. Then those with the longest
    quarantine, if that is at least `PORT_MIN_QUARANTINE_S`.

    Args:
        in_use: ports of running backends.
        ended_at: when the last backend of a port ended, in seconds of the same clock as ``now``.
    """
    count = len(ports)
    begin = after + 1 - ports.first if ports.first <= after <= ports.last else 0
    for offset in range(count):
        port = ports.first + (begin + offset) % count
        ended = ended_at.get(port)
        if port not in in_use and (ended is None or now - ended >= PORT_QUARANTINE_S):
            yield port
    quarantined = [
        (ended, port)
        for port, ended in ended_at.items()
        if ports.first <= port <= ports.last and PORT_MIN_QUARANTINE_S <= now - ended < PORT_QUARANTINE_S
    ]
    yield from (port for _, port in sorted(quarantined) if port not in in_use)
