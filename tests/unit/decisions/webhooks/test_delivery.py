"""What a webhook sends next, and what follows from the responses."""

from __future__ import annotations

import pytest

from plane.decisions.webhooks.delivery import (
    FAILURES_UNTIL_PAUSE,
    GIVE_UP_AFTER_S,
    Attempt,
    Outcome,
    PendingEvent,
    Progress,
    Sending,
    due_events,
    is_down,
    outcome_of_status,
    plan_sending,
    settle,
    subject_of,
)
from plane.protocol.event_feed import FeedEvent
from plane.protocol.times import DbTime

OK = Attempt(Outcome.DELIVERED)
BAD = Attempt(Outcome.FAILED, "status 500")


def event(number: int, backend: str | None = None, drone: str | None = None) -> FeedEvent:
    return FeedEvent(id=number, type="t", time=DbTime(0), backend=backend, drone=drone)


def pending(number: int, backend: str, due_in_s: float = 0.0, attempts: int = 1) -> PendingEvent:
    return PendingEvent(number, f"backend {backend}", attempts, due_in_s)


def settled(
    sending: Sending,
    attempts: dict[int, Attempt],
    known: list[PendingEvent] | None = None,
    age_s: float = 0.0,
    failures: int = 0,
) -> Progress:
    ids = [each.id for queue in sending.queues for each in queue] + [each.id for each in sending.waiting]
    return settle(sending, attempts, known or [], dict.fromkeys(ids, age_s), failures, 0.5)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (301, Outcome.FAILED),
        (307, Outcome.FAILED),
        (404, Outcome.FAILED),
        (410, Outcome.GONE),
        (500, Outcome.FAILED),
    ],
)
def test_only_2xx_is_success_and_410_turns_the_webhook_off(status: int, outcome: Outcome) -> None:
    assert outcome_of_status(status) is outcome


def test_order_is_kept_for_each_backend_and_each_drone() -> None:
    assert subject_of(event(1, "b", "dr")) == "backend b"
    assert subject_of(event(1, None, "dr")) == "drone dr"
    assert subject_of(event(1)) != subject_of(event(2))


def test_only_the_first_pending_event_of_a_subject_is_sent_and_only_when_it_is_due() -> None:
    waiting = [pending(5, "a"), pending(3, "a", due_in_s=9), pending(4, "b"), pending(6, "b"), pending(7, "c")]
    assert [each.event_id for each in due_events(waiting, 10, down=False)] == [4, 7]
    assert [each.event_id for each in due_events(waiting, 1, down=False)] == [4]


def test_while_the_receiver_is_down_the_oldest_event_alone_is_tried() -> None:
    waiting = [pending(5, "a"), pending(3, "b", due_in_s=3600)]
    assert [each.event_id for each in due_events(waiting, 10, down=True)] == [3]
    assert due_events([], 10, down=True) == []


def test_new_events_wait_behind_a_pending_one_of_their_backend_and_others_do_not() -> None:
    new = [event(10, "a"), event(11, "b"), event(12, "c"), event(13, "b")]
    sending = plan_sending([event(3, "a")], new, [pending(3, "a"), pending(4, "c", due_in_s=60)])
    assert [[each.id for each in queue] for queue in sending.queues] == [[3], [11, 13]]
    assert [each.id for each in sending.waiting] == [10, 12]


def test_delivered_events_are_done_and_later_ones_of_a_failed_subject_become_pending() -> None:
    sending = Sending([[event(1, "a"), event(2, "a")], [event(3, "b"), event(4, "b")]], [event(5, "c")])
    progress = settled(sending, {1: OK, 3: BAD, 2: OK})
    assert progress.delivered == [1, 2]
    assert progress.retries == [
        PendingEvent(3, "backend b", 1, 5.0),
        PendingEvent(4, "backend b", 0, 0.0),
        PendingEvent(5, "backend c", 0, 0.0),
    ]
    assert (progress.failures, progress.pause_s, progress.error) == (0, None, "status 500")


def test_delays_of_one_event_grow() -> None:
    sending = Sending([[event(1, "a")]], [])
    delays = [settled(sending, {1: BAD}, [pending(1, "a", attempts=n)]).retries[0].due_in_s for n in range(1, 8)]
    assert delays == [30.0, 120.0, 600.0, 1800.0, 3600.0, 3600.0, 3600.0]


def test_a_pending_event_that_was_not_sent_stays_as_it_is() -> None:
    sending = Sending([[event(1, "a")]], [])
    assert settled(sending, {}, [pending(1, "a")]) == Progress()


def test_failures_in_a_row_pause_the_webhook_and_a_success_ends_that() -> None:
    sending = Sending([[event(n, f"b{n}")] for n in range(5)], [])
    down = settled(sending, dict.fromkeys(range(5), BAD))
    assert (down.failures, down.pause_s) == (FAILURES_UNTIL_PAUSE, 5.0)
    assert is_down(down.failures)
    longer = settled(Sending([[event(1, "a")]], []), {1: BAD}, failures=FAILURES_UNTIL_PAUSE + 50)
    assert longer.pause_s == 600.0
    up = settled(Sending([[event(1, "a")]], []), {1: OK}, failures=FAILURES_UNTIL_PAUSE + 50)
    assert (up.failures, up.pause_s) == (0, None)


def test_an_event_is_given_up_after_a_day_but_tried_at_least_once() -> None:
    sending = Sending([[event(1, "a"), event(2, "a")]], [])
    old = settled(sending, {1: BAD}, age_s=GIVE_UP_AFTER_S + 1)
    assert old.given_up == [1]
    assert [each.event_id for each in old.retries] == [2]
    assert settled(sending, {1: BAD, 2: BAD}, age_s=GIVE_UP_AFTER_S).given_up == []


def test_a_webhook_that_is_gone_keeps_what_it_could_not_deliver() -> None:
    sending = Sending([[event(1, "a")], [event(2, "b")]], [])
    progress = settled(sending, {1: Attempt(Outcome.GONE, "status 410")}, age_s=GIVE_UP_AFTER_S + 1)
    assert progress.gone
    assert [each.event_id for each in progress.retries] == [1, 2]
