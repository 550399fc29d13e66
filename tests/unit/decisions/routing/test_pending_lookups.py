"""Lookups of tokens: one per token, each of which ends, and none of which is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.routing.pending_lookups import (
    DISCONNECTED_TIMEOUT_S,
    RESEND_INTERVAL_S,
    RESPONSE_TIMEOUT_S,
    PendingLookups,
)

NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])


def test_requests_share_one_lookup_of_a_token_and_the_oldest_lookup_makes_room() -> None:
    lookups = PendingLookups(now=0.0, limit=2)
    assert [lookups.join(token, 0.0) for token in ("a", "a", "b", "a")] == [True, False, True, False]
    assert lookups.make_room() is None
    assert lookups.join("c", 0.0) is True
    assert lookups.make_room() == "a"
    lookups.resolved("b")
    assert lookups.join("d", 0.0) is True
    assert lookups.make_room() is None
    assert lookups.join("e", 0.0) is True
    assert lookups.make_room() == "c"


def test_a_lookup_without_a_controller_fails_soon() -> None:
    lookups = PendingLookups(now=0.0)
    lookups.join("a", 5.0)
    assert lookups.poll(5.0 + DISCONNECTED_TIMEOUT_S - 0.1) == NOTHING
    assert lookups.poll(5.0 + DISCONNECTED_TIMEOUT_S) == ([], ["a"], [])
    assert lookups.join("a", 16.0) is True


def test_a_lookup_fails_soon_when_its_controller_disconnects() -> None:
    lookups = PendingLookups(now=0.0)
    lookups.connected(0.0)
    lookups.join("a", 1.0)
    lookups.disconnected(3.0)
    assert lookups.poll(3.0 + DISCONNECTED_TIMEOUT_S - 0.1) == NOTHING
    assert lookups.poll(3.0 + DISCONNECTED_TIMEOUT_S) == ([], ["a"], [])


def test_a_lookup_is_sent_to_the_next_controller_and_keeps_waiting() -> None:
    lookups = PendingLookups(now=0.0)
    lookups.join("a", 1.0)
    assert lookups.connected(2.0) == ["a"]
    assert lookups.poll(2.0 + DISCONNECTED_TIMEOUT_S / 2) == NOTHING


def test_a_pending_lookup_is_sent_again_and_fails_at_its_timeout() -> None:
    lookups = PendingLookups(now=0.0)
    lookups.connected(0.0)
    lookups.join("a", 0.0)
    polls = {now: lookups.poll(float(now)) for now in range(int(RESPONSE_TIMEOUT_S) + 1)}
    assert [now for now, (again, _, _) in polls.items() if again] == [
        number * int(RESEND_INTERVAL_S) for number in range(1, int(RESPONSE_TIMEOUT_S / RESEND_INTERVAL_S))
    ]
    assert [now for now, (_, failed, _) in polls.items() if failed] == [RESPONSE_TIMEOUT_S]


def test_a_lookup_that_no_request_waits_for_is_removed() -> None:
    lookups = PendingLookups(now=0.0)
    lookups.connected(0.0)
    for _ in range(2):
        lookups.join("a", 0.0)
    lookups.leave("a")
    assert lookups.poll(1.0) == NOTHING
    lookups.leave("a")
    assert lookups.poll(2.0) == ([], [], ["a"])
    assert len(lookups) == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "resolved", "connected", "disconnected", "poll"]),
              st.sampled_from("abcd"), st.floats(0, 50)), max_size=60)  # fmt: skip


@given(STEPS)
def test_no_lookup_outlives_its_timeout(steps: list[tuple[str, str, float]]) -> None:
    lookups, now = PendingLookups(now=0.0, limit=3), 0.0
    for step, token, passed in steps:
        now += passed
        match step:
            case "connected":
                assert len(lookups.connected(now)) == len(lookups)
            case "disconnected":
                lookups.disconnected(now)
            case "poll":
                lookups.poll(now)
            case "join":
                if lookups.join(token, now):
                    assert lookups.make_room() != token
            case "leave":
                lookups.leave(token)
            case _:
                lookups.resolved(token)
        assert len(lookups) <= 3
    lookups.poll(now + RESPONSE_TIMEOUT_S)
    assert len(lookups) == 0
