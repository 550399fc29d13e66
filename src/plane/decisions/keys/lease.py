"""Rules of a key's lease: its deadlines, whether it belongs to the drone's clock, and what is due when.

All times are on the drone's clock. The controller computes `lease_deadlines` when a key is acquired or renewed.
The drone checks with `foreign_lease_reason` that the deadlines are of its clock, and runs one `KeyLease` per backend:
`plane.drone.lease_renewer` passes it the time and the responses, carries out what is due, and polls again at `wake_at`.
Keys and leases are described in ``docs/reference/protocol/drone.md``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from plane.protocol.keys import KeyDeadlines
from plane.protocol.times import DroneTime
from plane.timing import KEY_HARD_TERMINATE_AFTER_S, KEY_RENEW_AFTER_S, KEY_SOFT_TERMINATE_AFTER_S

__all__ = ["KeyLease", "LeaseAction", "foreign_lease_reason", "lease_deadlines"]


def lease_deadlines(start: DroneTime) -> KeyDeadlines:
    """Return the deadlines of a lease that was acquired or renewed at ``start``.

    The hard deadline applies from the first lease on.
    """
    return KeyDeadlines(
        renew_at=start.plus_s(KEY_RENEW_AFTER_S),
        soft_terminate_at=start.plus_s(KEY_SOFT_TERMINATE_AFTER_S),
        hard_terminate_at=start.plus_s(KEY_HARD_TERMINATE_AFTER_S),
    )


def foreign_lease_reason(deadlines: KeyDeadlines, clock_began: DroneTime, now: DroneTime) -> str | None:
    """Return why a lease cannot have begun on the drone's current clock; None if it can have.

    After a reboot, or with a new state store, a drone has another clock than the one that it reported before.
    Deadlines that were computed from the former clock mean nothing on the current one.
    """
    began = deadlines.hard_terminate_at.plus_s(-KEY_HARD_TERMINATE_AFTER_S)
    if began < clock_began:
        return "its lease began before this drone's clock did"
    if began > now:
        return "its lease begins in the future of this drone's clock"
    return None


class LeaseAction(enum.Enum):
    """What is due for a lease."""

    RENEW = "renew"
    TERMINATE_SOFT = "terminate soft"
    TERMINATE_HARD = "terminate hard"


@dataclass(slots=True)
class KeyLease:
    """State machine of one lease: renew it, or terminate the backend. ``is_refused``: the last renewal was refused."""

    deadlines: KeyDeadlines
    is_refused: bool = False
    _renewal_requested: bool = False
    _soft_done: bool = False
    _hard_done: bool = False

    def due(self, now: DroneTime) -> list[LeaseAction]:
        """Return the actions that have become due; each is returned once."""
        actions = []
        if now >= self.deadlines.hard_terminate_at and not self._hard_done:
            self._hard_done = self._soft_done = True
            actions.append(LeaseAction.TERMINATE_HARD)
        elif now >= self.deadlines.soft_terminate_at and not self._soft_done:
            self._soft_done = True
            actions.append(LeaseAction.TERMINATE_SOFT)
        elif now >= self.deadlines.renew_at and not self._renewal_requested and not self._soft_done:
            self._renewal_requested = True
            actions.append(LeaseAction.RENEW)
        return actions

    def wake_at(self) -> DroneTime | None:
        """Return when the next action becomes due; None if there will be none."""
        if self._hard_done:
            return None
        deadlines = self.deadlines
        if self._soft_done:
            return deadlines.hard_terminate_at
        # In whichever order a controller put the deadlines.
        next_at = min(deadlines.soft_terminate_at, deadlines.hard_terminate_at)
        return next_at if self._renewal_requested else min(next_at, deadlines.renew_at)

    def renewed(self, deadlines: KeyDeadlines) -> None:
        """Take over the deadlines of a renewal. A termination that has begun continues."""
        self.deadlines = deadlines
        self._renewal_requested = self.is_refused = False

    def refused(self) -> None:
        """Note that the key cannot be renewed: the deadlines stay, and termination begins at the soft one."""
        self._renewal_requested = self.is_refused = True

    def renew_at_once(self, now: DroneTime) -> None:
        """Make the renewal due now."""
        self.deadlines = msgspec.structs.replace(self.deadlines, renew_at=now)
        self._renewal_requested = False

    def connected(self) -> None:
        """Note a new connection to a controller: a renewal that is due is requested again on it."""
        self._renewal_requested = False
