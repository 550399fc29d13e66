"""Keys that are certainly held, so that a connect queries only their holder.

A key whose lease was seen to end at some time is held until then, unless its backend ends before: leases are only ever
extended. `plane.controller.connect_statements` records what the database returns and removes ended backends. The
database still has the last word: a wrong entry costs one round trip and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict

from plane.protocol.keys import KeyConfig

__all__ = ["MAX_KEYS", "LeaseCache"]

# Beyond this number the least recently recorded keys are forgotten.
MAX_KEYS = 100_000


class LeaseCache:
    """The leases that one controller has seen. Times in seconds, monotonic."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        # By namespace and name: the holder, and the earliest possible end of its lease.
        self._held: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()
        self._key_of: dict[str, tuple[str, str]] = {}

    def is_held(self, key: KeyConfig, now_s: float) -> bool:
        """Return whether some backend certainly holds the key."""
        held = self._held.get((key.namespace, key.name))
        return held is not None and now_s < held[1]

    def record(self, key: KeyConfig, backend_id: str, until_s: float) -> None:
        """Note that the backend holds the key until ``until_s`` or later."""
        name = (key.namespace, key.name)
        self._forget(name)
        self._held[name] = (backend_id, until_s)
        self._key_of[backend_id] = name
        if len(self._held) > self._max_keys:
            self._forget(next(iter(self._held)))

    def remove_backend(self, backend_id: str) -> None:
        """Note that the backend is terminated, which frees its key."""
        if name := self._key_of.get(backend_id):
            self._forget(name)

    def _forget(self, name: tuple[str, str]) -> None:
        if held := self._held.pop(name, None):
            del self._key_of[held[0]]
