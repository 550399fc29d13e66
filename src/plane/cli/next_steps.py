"""What to do about a controller's refusal: the controller does not know which program its client is."""

from __future__ import annotations

from plane.protocol.errors import PlaneError

__all__ = ["next_step"]

# By the message of the refusal.
_STEPS = {
    "Backend does not exist": "its id is in the first column of: plane admin list --status all",
    "Drone does not exist": "drones are listed by: plane admin top --once",
    "Webhook does not exist": "webhooks are listed by: plane admin webhook list",
}


def next_step(error: PlaneError) -> str:
    """Return the end of a sentence that says what to do next, or nothing."""
    from plane.client.errors import CallRefused

    step = _STEPS.get(error.message) if isinstance(error, CallRefused) else None
    return f"; {step}" if step else ""
