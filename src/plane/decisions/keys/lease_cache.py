"""Which keys are held for certain, so that a connect need not ask for more than their holder?

A key whose lease was seen to end at some time is held until then, unless its backend ends before; leases are only ever
extended. `plane.controller.batched_statements` remembers what the database says and hears of ends; the database still
has the last word, so a mistake here costs a round trip and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict

from plane.protocol.keys import KeyConfig

__all__ = ["KEYS_LIMIT", "HeldKeys"]

# Beyond that the ones seen least lately are forgotten.
KEYS_LIMIT = 100_000


class HeldKeys:
    """What one controller knows of keys. Times in seconds, monotonic."""

    def __init__(self, limit: int = KEYS_LIMIT) -> None:
        self._limit = limit
        # By namespace and name: the holder, and until when at least.
        self._held: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()
        self._key_of: dict[str, tuple[str, str]] = {}

    def holds(self, key: KeyConfig, now_s: float) -> bool:
        """Whether somebody has the key for certain."""
        held = self._held.get((key.namespace, key.name))
        return held is not None and now_s < held[1]

    def saw(self, key: KeyConfig, backend_id: str, until_s: float) -> None:
        """The backend has the key, and its lease ends then or later."""
        name = (key.namespace, key.name)
        self._forget(name)
        self._held[name] = (backend_id, until_s)
        self._key_of[backend_id] = name
        if len(self._held) > self._limit:
            self._forget(next(iter(self._held)))

    def ended(self, backend_id: str) -> None:
        """The backend is terminated: its key is free."""
        if name := self._key_of.get(backend_id):
            self._forget(name)

    def _forget(self, name: tuple[str, str]) -> None:
        if held := self._held.pop(name, None):
            del self._key_of[held[0]]
