"""Decides when a certificate is ordered. `plane.proxy.certificates.renewer` requests the lease and orders.

Times are on the proxy's clock, the one exception to the rule about clocks: a certificate's end is a time of day. RFC
9773 has the rules for a window that the CA suggests.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from plane.timing import (
    CERTIFICATE_FAILURE_CAP_S,
    CERTIFICATE_FAILURE_FACTOR,
    CERTIFICATE_FAILURE_FIRST_S,
    CERTIFICATE_LEASE_S,
    CERTIFICATE_RENEWAL_WINDOW_S,
)

__all__ = ["OrderSchedule", "Validity", "renewal_time"]

# The window of a certificate whose life is hardly longer than the normal window, or shorter.
MAX_WINDOW_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class Validity:
    """Begin and end of a certificate, UTC."""

    not_before: datetime.datetime
    not_after: datetime.datetime


def renewal_time(
    validity: Validity, suggested: tuple[datetime.datetime, datetime.datetime] | None, random: float
) -> datetime.datetime:
    """Return when a certificate is to be replaced.

    Args:
        suggested: begin and end of the window that the CA suggests, if any (RFC 9773, section 4.2).
        random: from 0 to 1; the same for one certificate, so that the time does not change between calls.
    """
    if suggested is not None and suggested[0] < suggested[1]:
        begin, end = suggested
        return begin + (end - begin) * random
    lifetime = validity.not_after - validity.not_before
    window = min(datetime.timedelta(seconds=CERTIFICATE_RENEWAL_WINDOW_S), lifetime * MAX_WINDOW_SHARE)
    return validity.not_after - window


class OrderSchedule:
    """When the next order may begin. The wait grows with each failure. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._not_before = 0.0
        self._next_failure_s = CERTIFICATE_FAILURE_FIRST_S

    def wait_s(self, now: float) -> float:
        """Return the seconds until an order may begin."""
        return max(0.0, self._not_before - now)

    def refused(self, now: float) -> None:
        """Another proxy has the lease. Wait until it has a certificate, or its lease has expired."""
        self._not_before = now + CERTIFICATE_LEASE_S

    def failed(self, now: float, retry_after_s: float | None) -> float:
        """The order failed; ``retry_after_s`` is the CA's request. Return the seconds until the next order."""
        wait_s = max(self._next_failure_s, retry_after_s or 0.0)
        self._next_failure_s = min(self._next_failure_s * CERTIFICATE_FAILURE_FACTOR, CERTIFICATE_FAILURE_CAP_S)
        self._not_before = now + wait_s
        return wait_s

    def succeeded(self, now: float) -> None:
        """There is a new certificate. The next order waits even if the CA wants it replaced at once."""
        self._next_failure_s = CERTIFICATE_FAILURE_FIRST_S
        self._not_before = now + CERTIFICATE_FAILURE_FIRST_S
