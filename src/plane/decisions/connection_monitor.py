"""Is a backend in use? Counts requests in flight and tunnels, and remembers whether anything came since last asked.

`plane.proxy.connection_keeper` sends what is decided here. Rule: page 5, "Keepalive"; every request in flight
counts, tunnel or not (A10).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ConnectionMonitor"]


@dataclass(slots=True)
class _Use:
    open: int = 0
    touched: bool = False


class ConnectionMonitor:
    """The use of every backend that this proxy serves."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}

    def began(self, backend_id: str) -> bool:
        """A request or tunnel began. True if the backend was idle: it is to be kept alive at once."""
        use = self._uses.get(backend_id)
        if use is None:
            self._uses[backend_id] = _Use(1, touched=True)
            return True
        use.open += 1
        use.touched = True
        return False

    def ended(self, backend_id: str) -> None:
        """A request or tunnel ended."""
        use = self._uses.get(backend_id)
        if use is not None:
            use.open -= 1

    def tick(self) -> list[str]:
        """An interval is over: the backends to keep alive. Idle ones are forgotten."""
        in_use = []
        for backend_id, use in list(self._uses.items()):
            if use.open > 0 or use.touched:
                in_use.append(backend_id)
                use.touched = False
            else:
                del self._uses[backend_id]
        return in_use

    def in_use(self) -> list[str]:
        """All backends not forgotten, for a new connection to a controller."""
        return list(self._uses)
