"""Keeps the keys of the drone's backends: renews leases, and ends backends whose lease runs out.

Decided by `plane.decisions.keys.lease`; here the clock is read, and what is due is done. `run` is owned by
`plane.drone.server`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from plane.decisions.keys.lease import KeyLease, LeaseAction, foreign_lease_reason
from plane.drone.clock import DroneClock
from plane.protocol.backend_state import TerminationKind
from plane.protocol.drone_messages import RenewKey, RenewKeyResponse
from plane.protocol.keys import KeyDeadlines
from plane.protocol.times import DroneTime
from plane.runtime.base import DeadlineEnforcer

__all__ = ["LeaseRenewer"]

# Timers of the event loop stand still while the machine is suspended, the drone's clock does not.
LONGEST_SLEEP_S = 1.0
# While a renewal is waited for before a backend is started again.
RENEWAL_POLL_S = 0.05

EndBackend = Callable[[str, TerminationKind], None]
SendRenewal = Callable[[RenewKey], None]
Extended = Callable[[str, int], None]

log = structlog.get_logger("plane.drone")


class LeaseRenewer:
    """The leases of one drone.

    Args:
        clock: the drone's.
        end: begins the end of a backend, with reason `keyexpired`.
        enforcer: kills a backend whose hard deadline passed, should this process not do it.
        extended: called with a backend and its new hard deadline (CLOCK_BOOTTIME) at each renewal.
    """

    def __init__(self, clock: DroneClock, end: EndBackend, enforcer: DeadlineEnforcer, extended: Extended) -> None:
        self._clock = clock
        self._end = end
        self._enforcer = enforcer
        self._extended = extended
        self._send: SendRenewal | None = None
        self._leases: dict[str, KeyLease] = {}
        # Renewed and not stored yet. A restart that comes before has earlier deadlines, which is safe.
        self._renewed: dict[str, KeyDeadlines] = {}
        self._changed = asyncio.Event()

    def hold(self, backend_id: str, deadlines: KeyDeadlines) -> None:
        """A backend has a key."""
        self._leases[backend_id] = KeyLease(deadlines)
        self.enforce(backend_id, deadlines)
        self._changed.set()

    def enforce(self, backend_id: str, deadlines: KeyDeadlines) -> None:
        """Have a backend's deadlines enforced, from before its start on."""
        soft, hard = deadlines.soft_terminate_at, deadlines.hard_terminate_at
        self._enforcer.hold(backend_id, self._clock.since_boot_ns(soft), self._clock.since_boot_ns(hard))

    async def enforced(self) -> None:
        """Return once all deadlines are enforced.

        Raises:
            DeadlinesNotEnforced: nobody confirms that.
        """
        await self._enforcer.confirmed()

    def hard_deadline_ns(self, backend_id: str) -> int | None:
        """Return the hard deadline of the backend's key, in nanoseconds of CLOCK_BOOTTIME; None: it has none."""
        lease = self._leases.get(backend_id)
        return None if lease is None else self._clock.since_boot_ns(lease.deadlines.hard_terminate_at)

    def release(self, backend_id: str) -> None:
        """The backend is terminated."""
        self._leases.pop(backend_id, None)
        self._renewed.pop(backend_id, None)
        self._enforcer.release(backend_id)

    async def until_renewed(self, backend_id: str) -> bool:
        """Ask for the key's renewal now; returns whether it was renewed before the soft deadline.

        A drone that restored an old copy of its store would otherwise start what another drone runs by now.
        """
        lease = self._leases[backend_id]
        former = lease.deadlines
        lease.renew_at_once(self._clock.now())
        self._changed.set()
        while lease.deadlines.hard_terminate_at == former.hard_terminate_at:
            if lease.is_refused or self._clock.now() >= former.soft_terminate_at:
                return False
            await asyncio.sleep(RENEWAL_POLL_S)
        return True

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
        elif reason := foreign_lease_reason(response.deadlines, self._clock.began, self._clock.now()):
            log.error("key's renewal ignored", backend=response.backend, reason=reason)
            lease.refused()
        else:
            lease.renewed(response.deadlines)
            self._renewed[response.backend] = response.deadlines
            self.enforce(response.backend, response.deadlines)
            self._extended(response.backend, self._clock.since_boot_ns(response.deadlines.hard_terminate_at))
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
