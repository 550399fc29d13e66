"""Virtual time: events in order, random delays, and the history of what lived."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Life", "Violation", "World"]


class Violation(AssertionError):
    """A guarantee was broken. The text tells the story that led to it."""


@dataclass(slots=True)
class Life:
    """A process: which key and fencing token it has, where it runs, and from when to when."""

    key: str
    token: int
    backend_id: str
    machine: str
    began: float
    ended: float | None = None


@dataclass
class World:
    """The time of an observer outside of the cluster, in seconds, and what happens in it.

    Args:
        seed: decides everything that is random.
    """

    seed: int
    now: float = 0.0
    steps: int = 0
    lives: list[Life] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    # Guarantee 2, that fencing tokens rise, assumes that the database keeps its commits.
    commits_lost: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._living: dict[str, Life] = {}
        self._last_token: dict[str, int] = {}

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        """Let something happen after a delay."""
        heapq.heappush(self._events, (self.now + delay_s, next(self._order), event))

    def every(self, interval_s: float, event: Callable[[], None]) -> None:
        """Let something happen again and again, from a random moment of the first interval on."""

        def again() -> None:
            event()
            self.after(interval_s, again)

        self.after(self.random.random() * interval_s, again)

    def latency(self) -> float:
        """Return the delay of a message or a statement: mostly milliseconds, sometimes seconds."""
        chance = self.random.random()
        if chance < 0.9:
            return 0.001 + 0.02 * self.random.random()
        return 0.5 * self.random.random() if chance < 0.99 else 4.0 * self.random.random()

    def run(self, until: float) -> None:
        """Let everything happen that happens before ``until``."""
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            self.steps += 1
            event()
        self.now = until

    def tell(self, text: str) -> None:
        """Note a step of the story."""
        self.story.append(f"{self.now:9.3f} s  {text}")

    def begin(self, life: Life) -> None:
        """A process starts.

        Raises:
            Violation: another process of its key lives, or an earlier one had a token that is not smaller.
        """
        self.tell(f"process {life.backend_id} of key {life.key} (token {life.token}) starts on {life.machine}")
        other = self._living.get(life.key)
        if other is not None:
            self._fail(
                f"key {life.key} has two processes: {other.backend_id} since {other.began:.3f} s, and {life.backend_id}"
            )
        if life.token <= self._last_token.get(life.key, 0) and not self.commits_lost:
            self._fail(f"the fencing token of {life.backend_id} is not larger than the one before")
        self._last_token[life.key] = life.token
        self._living[life.key] = life
        self.lives.append(life)

    def end(self, life: Life) -> None:
        """A process ends."""
        if life.ended is None:
            life.ended = self.now
            del self._living[life.key]
            self.tell(f"process {life.backend_id} of key {life.key} ends")

    def _fail(self, what: str) -> None:
        raise Violation("\n".join([f"seed {self.seed}: {what}", *self.story[-40:]]))
