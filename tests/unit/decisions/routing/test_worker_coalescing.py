"""Several workers are one proxy to the controller."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.routing.worker_coalescing import (
    ASKED_LATELY_S,
    FORGOTTEN_AFTER_S,
    KEEPALIVE_INTERVAL_S,
    WorkerMerge,
)


def test_one_question_however_many_workers_ask_until_it_is_answered_or_lost() -> None:
    merge = WorkerMerge()
    assert [merge.question("t", 0.0), merge.question("t", 1.0), merge.question("u", 1.0)] == [True, False, True]
    assert merge.question("t", ASKED_LATELY_S) is True
    merge.answered("t")
    assert merge.question("t", ASKED_LATELY_S + 0.1) is True
    merge.disconnected()
    assert merge.question("u", 1.2) is True


def test_one_keepalive_an_interval_and_the_last_one_always() -> None:
    merge = WorkerMerge()
    assert merge.keep_alive("b", 0.0) is True
    assert merge.keep_alive("b", 0.2) is False
    assert merge.look(0.5) == []
    assert merge.look(KEEPALIVE_INTERVAL_S) == ["b"]
    assert merge.look(2 * KEEPALIVE_INTERVAL_S) == []
    assert merge.keep_alive("b", 3 * KEEPALIVE_INTERVAL_S) is True


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.01, 3.0)), max_size=40))
def test_no_use_is_lost_and_none_told_too_often(uses: list[tuple[str, float]]) -> None:
    merge, now = WorkerMerge(), 0.0
    told: dict[str, list[float]] = {"a": [], "b": []}
    used: dict[str, float] = {}
    for backend, passed in uses:
        now += passed
        used[backend] = now
        for due in merge.look(now):
            told[due].append(now)
        if merge.keep_alive(backend, now):
            told[backend].append(now)
    for due in merge.look(now + FORGOTTEN_AFTER_S):
        told[due].append(now + FORGOTTEN_AFTER_S)
    for backend, last in used.items():
        assert told[backend][-1] >= last
        gaps = [later - earlier for earlier, later in pairwise(told[backend])]
        assert all(gap >= KEEPALIVE_INTERVAL_S - 1e-9 for gap in gaps)
