"""Questions about tokens: one each, none for ever, none lost for good."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.routing.pending_lookups import ANSWER_LIMIT_S, ASK_AGAIN_S, DISCONNECTED_LIMIT_S, PendingLookups

NOTHING: tuple[list[str], list[str], list[str]] = ([], [], [])


def test_one_question_however_many_wait_and_the_oldest_makes_room() -> None:
    questions = PendingLookups(now=0.0, limit=2)
    assert [questions.join(token, 0.0) for token in ("a", "a", "b", "a")] == [True, False, True, False]
    assert questions.make_room() is None
    assert questions.join("c", 0.0) is True
    assert questions.make_room() == "a"
    questions.answered("b")
    assert questions.join("d", 0.0) is True
    assert questions.make_room() is None
    assert questions.join("e", 0.0) is True
    assert questions.make_room() == "c"


def test_without_a_controller_it_fails_soon() -> None:
    questions = PendingLookups(now=0.0)
    questions.join("a", 5.0)
    assert questions.look(5.0 + DISCONNECTED_LIMIT_S - 0.1) == NOTHING
    assert questions.look(5.0 + DISCONNECTED_LIMIT_S) == ([], ["a"], [])
    assert questions.join("a", 16.0) is True


def test_a_controller_that_goes_away_meanwhile_makes_it_fail_soon() -> None:
    questions = PendingLookups(now=0.0)
    questions.connected(0.0)
    questions.join("a", 1.0)
    questions.disconnected(3.0)
    assert questions.look(3.0 + DISCONNECTED_LIMIT_S - 0.1) == NOTHING
    assert questions.look(3.0 + DISCONNECTED_LIMIT_S) == ([], ["a"], [])


def test_it_is_sent_to_the_next_controller_and_waits_on() -> None:
    questions = PendingLookups(now=0.0)
    questions.join("a", 1.0)
    assert questions.connected(2.0) == ["a"]
    assert questions.look(2.0 + DISCONNECTED_LIMIT_S / 2) == NOTHING


def test_a23_it_is_asked_again_while_open_and_fails_at_last() -> None:
    questions = PendingLookups(now=0.0)
    questions.connected(0.0)
    questions.join("a", 0.0)
    looks = {now: questions.look(float(now)) for now in range(int(ANSWER_LIMIT_S) + 1)}
    assert [now for now, (again, _, _) in looks.items() if again] == [
        number * int(ASK_AGAIN_S) for number in range(1, int(ANSWER_LIMIT_S / ASK_AGAIN_S))
    ]
    assert [now for now, (_, failed, _) in looks.items() if failed] == [ANSWER_LIMIT_S]


def test_what_nobody_waits_for_is_forgotten() -> None:
    questions = PendingLookups(now=0.0)
    questions.connected(0.0)
    for _ in range(2):
        questions.join("a", 0.0)
    questions.leave("a")
    assert questions.look(1.0) == NOTHING
    questions.leave("a")
    assert questions.look(2.0) == ([], [], ["a"])
    assert len(questions) == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "answered", "connected", "disconnected", "look"]),
              st.sampled_from("abcd"), st.floats(0, 50)), max_size=60)  # fmt: skip


@given(STEPS)
def test_whatever_happens_no_question_outlives_its_limit(steps: list[tuple[str, str, float]]) -> None:
    questions, now = PendingLookups(now=0.0, limit=3), 0.0
    for step, token, passed in steps:
        now += passed
        match step:
            case "connected":
                assert len(questions.connected(now)) == len(questions)
            case "disconnected":
                questions.disconnected(now)
            case "look":
                questions.look(now)
            case "join":
                if questions.join(token, now):
                    assert questions.make_room() != token
            case "leave":
                questions.leave(token)
            case _:
                questions.answered(token)
        assert len(questions) <= 3
    questions.look(now + ANSWER_LIMIT_S)
    assert len(questions) == 0
