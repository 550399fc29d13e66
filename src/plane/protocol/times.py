"""Points in time, one type per clock, so that a type checker refuses to compare two machines' clocks.

On the wire both are integers: milliseconds since the Unix epoch, UTC. Times of different machines are never compared;
    see
``docs/decisions/0002-drone-clock.md``.
"""

from __future__ import annotations

from typing import Any, Self

__all__ = ["DbTime", "DroneTime", "Instant"]


class Instant:
    """Milliseconds since the Unix epoch on one particular clock; comparable only with the same type."""

    __slots__ = ("ms",)

    def __init__(self, ms: int) -> None:
        self.ms = ms

    def plus_s(self, seconds: float) -> Self:
        """Return this time plus ``seconds``."""
        return type(self)(self.ms + round(seconds * 1000))

    def seconds_until(self, later: Self) -> float:
        """Return the seconds from this time to ``later``; negative if ``later`` is earlier."""
        return (later.ms - self.ms) / 1000

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instant) and type(other) is type(self) and other.ms == self.ms

    # Narrower than Any on purpose: comparing a DroneTime with a DbTime must not type-check.
    def __lt__(self, other: Self) -> bool:
        return self.ms < other.ms if type(other) is type(self) else NotImplemented

    def __le__(self, other: Self) -> bool:
        return self.ms <= other.ms if type(other) is type(self) else NotImplemented

    def __gt__(self, other: Self) -> bool:
        return self.ms > other.ms if type(other) is type(self) else NotImplemented

    def __ge__(self, other: Self) -> bool:
        return self.ms >= other.ms if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self.ms))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ms})"


class DroneTime(Instant):
    """A time on one drone's clock, for example the deadlines of a key."""

    __slots__ = ()


class DbTime(Instant):
    """A time on the database's clock, the only one that a controller trusts."""

    __slots__ = ()


def to_json(value: Any) -> int:
    """Encode an instant; a hook of `codec`."""
    if isinstance(value, Instant):
        return value.ms
    raise NotImplementedError(f"{type(value).__name__} has no JSON encoding")


def from_json(kind: type, value: Any) -> Any:
    """Decode an instant; a hook of `codec`."""
    if issubclass(kind, Instant):
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise ValueError("Expected milliseconds since the epoch as an integer")
        return kind(value)
    raise NotImplementedError(f"{kind.__name__} has no JSON encoding")
