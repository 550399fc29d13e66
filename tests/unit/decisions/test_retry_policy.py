from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.retry_policy import ATTEMPTS, is_passing, may_repeat, wait_before


@pytest.mark.parametrize(
    ("repeatable", "sent", "again"),
    [(True, True, True), (True, False, True), (False, False, True), (False, True, False)],
)
def test_what_could_be_done_twice_is_sent_again_only_if_it_was_not_sent(
    repeatable: bool, sent: bool, again: bool
) -> None:
    assert may_repeat(1, repeatable=repeatable, sent=sent) is again


def test_attempts_end() -> None:
    assert may_repeat(ATTEMPTS - 1, repeatable=True, sent=False)
    assert not may_repeat(ATTEMPTS, repeatable=True, sent=False)


def test_only_a_gateway_s_words_are_passing() -> None:
    assert [status for status in range(200, 600) if is_passing(status)] == [502, 503, 504]


@given(st.floats(0, 1), st.floats(0, 1))
def test_waits_grow_whatever_chance_says(one: float, other: float) -> None:
    assert 0 < wait_before(2, one) < wait_before(3, other) < 1
