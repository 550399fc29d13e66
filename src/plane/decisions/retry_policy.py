"""May a call to a controller be sent again, and when? Only what cannot do harm is.

`plane.client` sleeps and sends.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ATTEMPTS", "is_passing", "may_repeat", "wait_before"]

# The first and two more: a controller that restarts, or one of several behind one name that is gone.
ATTEMPTS: Final = 3
FIRST_WAIT_S: Final = 0.1
FACTOR: Final = 4.0


def may_repeat(attempt: int, *, repeatable: bool, sent: bool) -> bool:
    """Whether another attempt follows the failed ``attempt`` (from 1). ``sent``: it may have reached the controller."""
    return attempt < ATTEMPTS and (repeatable or not sent)


def is_passing(http_status: int) -> bool:
    """Whether an error answer says that the same call may well succeed in a moment.

    502 to 504 are a load balancer's word for a controller that restarts; 503 is also a controller's own word for a
    database that does.
    """
    return http_status in (502, 503, 504)


def wait_before(attempt: int, random: float) -> float:
    """Seconds before attempt number ``attempt`` (from 2); ``random`` from 0 to 1 spreads many callers."""
    return FIRST_WAIT_S * float(FACTOR ** (attempt - 2)) * (0.5 + random)
