"""Decides which events a webhook sends next, in which order, and what follows from the responses.

Events of one subject, for example a backend, are sent in order: a later one waits until the earlier one is delivered or
given up. Other subjects are not held up. When several attempts in a row have failed, the receiver is taken to be down:
then only one event at a time is tried, after growing pauses.

`plane.controller.webhooks.delivery` sends and stores. Times are given by it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from plane.protocol.event_feed import FeedEvent

__all__ = [
    "FAILURES_UNTIL_PAUSE",
    "GIVE_UP_AFTER_S",
    "MAX_PENDING",
    "Attempt",
    "Outcome",
    "PendingEvent",
    "Progress",
    "Sending",
    "due_events",
    "is_down",
    "outcome_of_status",
    "plan_sending",
    "settle",
    "subject_of",
]

# A failed event is given up when it is older than this; each event is tried at least once.
GIVE_UP_AFTER_S: Final = 24 * 3600.0
# Failed attempts in a row, of whatever events, after which the receiver is taken to be down.
FAILURES_UNTIL_PAUSE: Final = 5
# Events that may wait for a retry. Beyond this number no new events are begun, and the feed itself is the queue.
MAX_PENDING: Final = 1_000
# From one attempt of an event to the next; the last one is repeated.
_RETRY_DELAYS_S: Final = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
# From one attempt to the next while the receiver is down. Short enough that its return is noticed soon.
_PAUSES_S: Final = (5.0, 15.0, 60.0, 300.0, 600.0)
# Delays vary by this share, so that many events do not return at one time.
_JITTER: Final = 0.2


class Outcome(enum.Enum):
    """What a response means. ``GONE``: the receiver wants no more events, so the webhook is turned off."""

    DELIVERED = enum.auto()
    FAILED = enum.auto()
    GONE = enum.auto()


def outcome_of_status(status: int) -> Outcome:
    """Return what an HTTP status means: 2xx is success, 410 turns the webhook off, all others are failures.

    Redirects are failures, since they could lead to an address that the webhook may not reach.
    """
    if 200 <= status < 300:
        return Outcome.DELIVERED
    return Outcome.GONE if status == 410 else Outcome.FAILED


def subject_of(event: FeedEvent) -> str:
    """Return what the order of events is kept for: the backend, else the drone, else the event alone."""
    if event.backend is not None:
        return f"backend {event.backend}"
    return f"drone {event.drone}" if event.drone is not None else f"event {event.id}"


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """An event that waits for a retry, or behind an earlier one of its subject.

    ``attempts``: how often it was sent. It is due in ``due_in_s``; 0 or less: now.
    """

    event_id: int
    subject: str
    attempts: int
    due_in_s: float


def is_down(failures: int) -> bool:
    """Return whether so many failures in a row mean that the receiver is down."""
    return failures >= FAILURES_UNTIL_PAUSE


def due_events(pending: Sequence[PendingEvent], limit: int, *, down: bool) -> list[PendingEvent]:
    """Return the pending events to send now, at most one of each subject: its first one, if it is due.

    While the receiver is down, the oldest event is tried, whether it is due or not.
    """
    first: dict[str, PendingEvent] = {}
    for each in sorted(pending, key=lambda each: each.event_id):
        first.setdefault(each.subject, each)
    if down:
        return list(first.values())[:1]
    return [each for each in first.values() if each.due_in_s <= 0][:limit]


@dataclass(frozen=True, slots=True)
class Sending:
    """What one round sends: the events of each subject in order. ``waiting`` are not sent, but become pending."""

    queues: list[list[FeedEvent]]
    waiting: list[FeedEvent]


def plan_sending(retried: Sequence[FeedEvent], new: Sequence[FeedEvent], pending: Sequence[PendingEvent]) -> Sending:
    """Return what to send of retried and of new events. New ones whose subject is pending wait behind it."""
    blocked = {each.subject for each in pending}
    queues: dict[str, list[FeedEvent]] = {subject_of(event): [event] for event in retried}
    waiting = []
    for event in new:
        subject = subject_of(event)
        if subject in blocked:
            waiting.append(event)
        else:
            queues.setdefault(subject, []).append(event)
    return Sending(list(queues.values()), waiting)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of sending an event. ``error``: what happened, unless it was delivered."""

    outcome: Outcome
    error: str | None = None


@dataclass(slots=True)
class Progress:
    """What a round changes.

    Attributes:
        delivered, given_up: ids of events that are done.
        retries: events that are pending from now on, or still.
        failures: failed attempts in a row.
        pause_s: the receiver is down, and the next attempt is due after this time. None: it is not.
        error: of the last failed attempt of this round, if any.
        gone: the receiver wants no more events.
    """

    delivered: list[int] = field(default_factory=list)
    given_up: list[int] = field(default_factory=list)
    retries: list[PendingEvent] = field(default_factory=list)
    failures: int = 0
    pause_s: float | None = None
    error: str | None = None
    gone: bool = False


def settle(
    sending: Sending,
    attempts: Mapping[int, Attempt],
    pending: Sequence[PendingEvent],
    ages_s: Mapping[int, float],
    failures: int,
    chance: float,
) -> Progress:
    """Return what follows from a round.

    Args:
        sending: what was to be sent.
        attempts: the result of each event that was sent, in the order in which they ended. Others were not begun.
        pending: the pending events before the round.
        ages_s: the age of each event.
        failures: failed attempts in a row before the round.
        chance: random, from 0 to 1.
    """
    progress = Progress(failures=failures)
    for attempt in attempts.values():
        progress.failures = 0 if attempt.outcome is Outcome.DELIVERED else progress.failures + 1
        progress.error = attempt.error or progress.error
        progress.gone = progress.gone or attempt.outcome is Outcome.GONE
    if is_down(progress.failures):
        progress.pause_s = _delay_s(_PAUSES_S, progress.failures - FAILURES_UNTIL_PAUSE, chance)
    known = {each.event_id: each for each in pending}
    for event in (*(event for queue in sending.queues for event in queue), *sending.waiting):
        before = known.get(event.id)
        made = before.attempts if before is not None else 0
        attempt_now = attempts.get(event.id)
        if attempt_now is None:
            if before is None:
                progress.retries.append(PendingEvent(event.id, subject_of(event), 0, 0.0))
        elif attempt_now.outcome is Outcome.DELIVERED:
            progress.delivered.append(event.id)
        elif attempt_now.outcome is Outcome.FAILED and ages_s[event.id] > GIVE_UP_AFTER_S:
            progress.given_up.append(event.id)
        else:
            delay_s = _delay_s(_RETRY_DELAYS_S, made, chance)
            progress.retries.append(PendingEvent(event.id, subject_of(event), made + 1, delay_s))
    return progress


def _delay_s(delays_s: Sequence[float], number: int, chance: float) -> float:
    return delays_s[min(number, len(delays_s) - 1)] * (1 - _JITTER + 2 * _JITTER * chance)
