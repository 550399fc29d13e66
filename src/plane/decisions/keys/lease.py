"""Renew the key, or end the backend? One lease as a small machine, in the drone's clock.

`plane.drone.lease_renewer` tells it the time and what was answered, does what is due, and asks again at
`wake_at`. Rules: page 4, "Keys"; A2 of page 7.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from plane.protocol.keys import KeyDeadlines
from plane.protocol.times import DroneTime

__all__ = ["KeyLease", "LeaseAction"]


class LeaseAction(enum.Enum):
    """What is due."""

    RENEW = "renew"
    TERMINATE_SOFT = "terminate soft"
    TERMINATE_HARD = "terminate hard"


@dataclass(slots=True)
class KeyLease:
    """A lease and what has been done about it. ``is_refused``: the controller refused the last renewal."""

    deadlines: KeyDeadlines
    is_refused: bool = False
    _asked: bool = False
    _soft_done: bool = False
    _hard_done: bool = False

    def due(self, now: DroneTime) -> list[LeaseAction]:
        """What is to be done now; each thing is said once."""
        actions = []
        if now >= self.deadlines.hard_terminate_at and not self._hard_done:
            self._hard_done = self._soft_done = True
            actions.append(LeaseAction.TERMINATE_HARD)
        elif now >= self.deadlines.soft_terminate_at and not self._soft_done:
            self._soft_done = True
            actions.append(LeaseAction.TERMINATE_SOFT)
        elif now >= self.deadlines.renew_at and not self._asked and not self._soft_done:
            self._asked = True
            actions.append(LeaseAction.RENEW)
        return actions

    def wake_at(self) -> DroneTime | None:
        """When something will be due next; None when nothing will."""
        if self._hard_done:
            return None
        if self._soft_done:
            return self.deadlines.hard_terminate_at
        return self.deadlines.soft_terminate_at if self._asked else self.deadlines.renew_at

    def renewed(self, deadlines: KeyDeadlines) -> None:
        """The controller has extended the lease. What ends already goes on ending."""
        self.deadlines = deadlines
        self._asked = self.is_refused = False

    def refused(self) -> None:
        """The key cannot be renewed: the deadlines stay, and the graceful end begins at the soft one."""
        self._asked = self.is_refused = True

    def renew_at_once(self, now: DroneTime) -> None:
        """Make the renewal due now."""
        self.deadlines = msgspec.structs.replace(self.deadlines, renew_at=now)
        self._asked = False

    def connected(self) -> None:
        """A new connection: a renewal that is due must be asked for again on it."""
        self._asked = False
