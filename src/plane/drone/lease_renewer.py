"""Renew the leases of the drone's backends, and terminate backends whose lease expires.

`plane.decisions.keys.lease` decides; this file reads the clock and does what is due. `plane.drone.server` owns `run`.
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

# Timers of the event loop stop while the machine is suspended; the drone's clock does not.
LONGEST_SLEEP_S = 1.0
RENEWAL_POLL_INTERVAL_S = 0.05

TerminateBackend = Callable[[str, TerminationKind], None]
SendRenewal = Callable[[RenewKey], None]
ExtendDeadline = Callable[[str, int], None]

log = structlog.get_logger("plane.drone")


class LeaseRenewer:
    """The leases of one drone's backends.

    Args:
        terminate: begins the termination of a backend, with the reason `keyexpired`.
        enforcer: kills a backend past its hard deadline if this process fails to.
        extend_deadline: called at each renewal with a backend id and its new hard deadline (CLOCK_BOOTTIME).

    Attributes:
        renewed_count, refused_count: responses to renewals, since this process started.
    """

    def __init__(
        self,
        clock: DroneClock,
        terminate: TerminateBackend,
        enforcer: DeadlineEnforcer,
        extend_deadline: ExtendDeadline,
    ) -> None:
        self._clock = clock
        self._terminate = terminate
        self._enforcer = enforcer
        self._extend_deadline = extend_deadline
        self._send: SendRenewal | None = None
        self._leases: dict[str, KeyLease] = {}
        # When something is due next for each lease, in milliseconds of the drone's clock. `run` wakes up twice for each
        # renewal. With 500 backends it compares these numbers in 15 us, and needs 700 us to examine the leases.
        self._due_ms: dict[str, int] = {}
        # Renewed deadlines that are not stored yet. After a crash the store has earlier deadlines, which is safe.
        self._renewed: dict[str, KeyDeadlines] = {}
        self._changed = asyncio.Event()
        self.renewed_count = 0
        self.refused_count = 0

    def __len__(self) -> int:
        return len(self._leases)

    def shortest_s(self) -> float | None:
        """Return the seconds until the first lease expires unless it is renewed; None without leases."""
        if not self._leases:
            return None
        return self._clock.now().seconds_until(
            min(lease.deadlines.soft_terminate_at for lease in self._leases.values())
        )

    def add(self, backend_id: str, deadlines: KeyDeadlines) -> None:
        """Begin to renew the lease of a backend."""
        self._leases[backend_id] = KeyLease(deadlines)
        self.enforce(backend_id, deadlines)
        self._schedule(backend_id)

    def enforce(self, backend_id: str, deadlines: KeyDeadlines) -> None:
        """Have a backend's deadlines enforced by the watchdog. Called before its start, too."""
        soft, hard = deadlines.soft_terminate_at, deadlines.hard_terminate_at
        self._enforcer.enforce(backend_id, self._clock.since_boot_ns(soft), self._clock.since_boot_ns(hard))

    async def wait_enforced(self) -> None:
        """Return once all deadlines are enforced.

        Raises:
            DeadlinesNotEnforced: the watchdog does not confirm it.
        """
        await self._enforcer.wait_confirmed()

    def hard_deadline_ns(self, backend_id: str) -> int | None:
        """Return the hard deadline of a lease, in nanoseconds of CLOCK_BOOTTIME; None: the backend has no lease."""
        lease = self._leases.get(backend_id)
        return None if lease is None else self._clock.since_boot_ns(lease.deadlines.hard_terminate_at)

    def remove(self, backend_id: str) -> None:
        """Remove the lease of a terminated backend."""
        self._leases.pop(backend_id, None)
        self._due_ms.pop(backend_id, None)
        self._renewed.pop(backend_id, None)
        self._enforcer.release(backend_id)

    async def wait_renewed(self, backend_id: str) -> bool:
        """Renew a lease now. Return whether that succeeded before the soft deadline.

        A drone that restored an old copy of its store must not start a backend whose key another drone holds by now.
        """
        lease = self._leases[backend_id]
        former = lease.deadlines
        lease.renew_at_once(self._clock.now())
        self._schedule(backend_id)
        while lease.deadlines.hard_terminate_at == former.hard_terminate_at:
            if lease.is_refused or self._clock.now() >= former.soft_terminate_at:
                return False
            await asyncio.sleep(RENEWAL_POLL_INTERVAL_S)
        return True

    def take_renewed(self) -> dict[str, KeyDeadlines]:
        """Return the deadlines that were renewed since the last call, to be stored."""
        renewed, self._renewed = self._renewed, {}
        return renewed

    def on_connected(self, send: SendRenewal) -> None:
        """Send renewals by ``send`` from now on, and send those that are due again.

        ``send`` must not block: a controller that receives nothing must not delay a deadline.
        """
        self._send = send
        for backend_id, lease in self._leases.items():
            lease.connected()
            self._schedule(backend_id)

    def on_disconnected(self) -> None:
        """Stop sending renewals. Deadlines still apply."""
        self._send = None

    def on_response(self, response: RenewKeyResponse) -> None:
        """Handle a controller's response to a renewal."""
        lease = self._leases.get(response.backend)
        if lease is None:
            return
        if response.deadlines is None:
            log.warning("key renewal refused; backend will be terminated", backend=response.backend)
            lease.refused()
            self.refused_count += 1
        elif reason := foreign_lease_reason(response.deadlines, self._clock.began, self._clock.now()):
            log.error("key renewal ignored", backend=response.backend, reason=reason)
            lease.refused()
            self.refused_count += 1
        else:
            self.renewed_count += 1
            lease.renewed(response.deadlines)
            self._renewed[response.backend] = response.deadlines
            self.enforce(response.backend, response.deadlines)
            self._extend_deadline(response.backend, self._clock.since_boot_ns(response.deadlines.hard_terminate_at))
        self._schedule(response.backend)

    async def run(self) -> None:
        """Renew and terminate when due, until cancelled."""
        while True:
            now = self._clock.now()
            for backend_id in [name for name, due_ms in self._due_ms.items() if due_ms <= now.ms]:
                actions = self._leases[backend_id].due(now)
                self._schedule(backend_id)
                for action in actions:
                    self._do(backend_id, action, now)
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._sleep_s()):
                    await self._changed.wait()

    def _schedule(self, backend_id: str) -> None:
        """Note when something is due next for a lease, and wake `run`. Called after each change of the lease."""
        self._due_ms.pop(backend_id, None)
        if (wake_at := self._leases[backend_id].wake_at()) is not None:
            self._due_ms[backend_id] = wake_at.ms
        self._changed.set()

    def _sleep_s(self) -> float:
        if not self._due_ms:
            return LONGEST_SLEEP_S
        due_in_s = (min(self._due_ms.values()) - self._clock.now().ms) / 1000
        return min(max(0.0, due_in_s), LONGEST_SLEEP_S)

    def _do(self, backend_id: str, action: LeaseAction, now: DroneTime) -> None:
        match action:
            case LeaseAction.RENEW:
                if self._send is not None:
                    self._send(RenewKey(backend=backend_id, local_time=now))
            case LeaseAction.TERMINATE_SOFT:
                log.warning("lease about to expire; stopping backend", backend=backend_id)
                self._terminate(backend_id, TerminationKind.SOFT)
            case LeaseAction.TERMINATE_HARD:
                log.warning("lease expired; killing backend", backend=backend_id)
                self._terminate(backend_id, TerminationKind.HARD)
