"""Keeps the keys of the drone's backends: renews leases, and ends backends whose lease runs out.

Decided by `plane.decisions.key_lease`; here the clock is read, and what is due is done. `run` is owned by
`plane.drone.running`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from plane.decisions.key_lease import KeyLease, LeaseAction
from plane.drone.clock import DroneClock
from plane.protocol.backend_state import TerminationKind
from plane.protocol.drone_messages import RenewKey, RenewKeyResponse
from plane.protocol.keys import KeyDeadlines
from plane.protocol.times import DroneTime

__all__ = ["KeyKeeper"]

# Timers of the event loop stand still while the machine is suspended, the drone's clock does not.
LONGEST_SLEEP_S = 1.0

EndBackend = Callable[[str, TerminationKind], None]
SendRenewal = Callable[[RenewKey], None]

log = structlog.get_logger("plane.drone")


class KeyKeeper:
    """The leases of one drone.

    Args:
        clock: the drone's.
        end: begins the end of a backend, with reason `keyexpired`.
    """

    def __init__(self, clock: DroneClock, end: EndBackend) -> None:
        self._clock = clock
        self._end = end
        self._send: SendRenewal | None = None
        self._leases: dict[str, KeyLease] = {}
        # Renewed and not stored yet. A restart that comes before has earlier deadlines, which is safe.
        self._renewed: dict[str, KeyDeadlines] = {}
        self._changed = asyncio.Event()

    def hold(self, backend_id: str, deadlines: KeyDeadlines) -> None:
        """A backend has a key."""
        self._leases[backend_id] = KeyLease(deadlines)
        self._changed.set()

    def release(self, backend_id: str) -> None:
        """The backend is terminated."""
        self._leases.pop(backend_id, None)
        self._renewed.pop(backend_id, None)

    def take_renewed(self) -> dict[str, KeyDeadlines]:
        """The deadlines that are new since the last call, to be stored."""
        renewed, self._renewed = self._renewed, {}
        return renewed

    def connected(self, send: SendRenewal) -> None:
        """Renewals go there from now on; what is due is asked for again.

        ``send`` must not wait: a controller that takes nothing must not keep a deadline waiting.
        """
        self._send = send
        for lease in self._leases.values():
            lease.connected()
        self._changed.set()

    def disconnected(self) -> None:
        """Renewals cannot be sent; deadlines go on."""
        self._send = None

    def answered(self, response: RenewKeyResponse) -> None:
        """The controller has answered a renewal."""
        lease = self._leases.get(response.backend)
        if lease is None:
            return
        if response.deadlines is None:
            log.warning("key not renewed; the backend will be ended", backend=response.backend)
            lease.refused()
        else:
            lease.renewed(response.deadlines)
            self._renewed[response.backend] = response.deadlines
        self._changed.set()

    async def run(self) -> None:
        """Do what is due, when it is due; until cancelled."""
        while True:
            now = self._clock.now()
            for backend_id, lease in list(self._leases.items()):
                for action in lease.due(now):
                    self._do(backend_id, action, now)
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sleep_s()):
                    await self._changed.wait()

    def _sleep_s(self) -> float:
        now = self._clock.now()
        wakes = [wake for lease in self._leases.values() if (wake := lease.wake_at()) is not None]
        if not wakes:
            return LONGEST_SLEEP_S
        return min(max(0.0, now.seconds_until(min(wakes))), LONGEST_SLEEP_S)

    def _do(self, backend_id: str, action: LeaseAction, now: DroneTime) -> None:
        match action:
            case LeaseAction.RENEW:
                if self._send is not None:
                    self._send(RenewKey(backend=backend_id, local_time=now))
            case LeaseAction.TERMINATE_SOFT:
                log.warning("key's lease is running out; backend is asked to stop", backend=backend_id)
                self._end(backend_id, TerminationKind.SOFT)
            case LeaseAction.TERMINATE_HARD:
                log.warning("key's lease is over; backend is killed", backend=backend_id)
                self._end(backend_id, TerminationKind.HARD)
