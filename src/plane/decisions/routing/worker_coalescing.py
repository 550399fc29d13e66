"""What of that which several workers say does a controller need to hear? They are one proxy to it.

One question per token, whichever workers ask it; and of the keepalives of one backend no more than one a second, but
always the last, so that a backend's idle time begins when its last worker's use ended. `plane.proxy.processes.workers`
does it.
"""

from __future__ import annotations

from plane.decisions.routing.pending_lookups import ASK_AGAIN_S

__all__ = ["WorkerMerge"]

# A question without an answer may be asked again after this: just before a worker that has asked does so. So the
# controller hears one an interval, however many workers ask.
ASKED_LATELY_S = ASK_AGAIN_S - 1.0
KEEPALIVE_INTERVAL_S = 1.0
FORGOTTEN_AFTER_S = 60.0


class WorkerMerge:
    """Times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._asked_at: dict[str, float] = {}
        self._kept_at: dict[str, float] = {}
        self._owed: set[str] = set()

    def question(self, token: str, now: float) -> bool:
        """A worker asks. True: ask the controller; False: that is under way, and its answer is for all."""
        asked_at = self._asked_at.get(token)
        if asked_at is not None and now - asked_at < ASKED_LATELY_S:
            return False
        self._asked_at.pop(token, None)
        self._asked_at[token] = now
        return True

    def answered(self, token: str) -> None:
        """The controller has answered."""
        self._asked_at.pop(token, None)

    def disconnected(self) -> None:
        """What was asked is lost."""
        self._asked_at.clear()

    def keep_alive(self, backend_id: str, now: float) -> bool:
        """A worker uses a backend. True: tell the controller now; False: `look` will say when."""
        kept_at = self._kept_at.get(backend_id)
        if kept_at is not None and now - kept_at < KEEPALIVE_INTERVAL_S:
            self._owed.add(backend_id)
            return False
        self._kept_at[backend_id] = now
        self._owed.discard(backend_id)
        return True

    def look(self, now: float) -> list[str]:
        """The backends to keep alive now; and what is old is forgotten. To be called each interval."""
        due = [backend_id for backend_id in self._owed if now - self._kept_at[backend_id] >= KEEPALIVE_INTERVAL_S]
        for backend_id in due:
            self._owed.discard(backend_id)
            self._kept_at[backend_id] = now
        for backend_id in [b for b, kept_at in self._kept_at.items() if now - kept_at >= FORGOTTEN_AFTER_S]:
            del self._kept_at[backend_id]
        for token in [t for t, asked_at in self._asked_at.items() if now - asked_at >= FORGOTTEN_AFTER_S]:
            del self._asked_at[token]
        return due
