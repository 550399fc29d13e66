"""Several workers are one proxy to the controller."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.routing.worker_coalescing import (
    COALESCED_S,
    FORGOTTEN_AFTER_S,
    KEEPALIVE_INTERVAL_S,
    WorkerCoalescing,
)


def test_workers_share_one_lookup_of_a_token_until_it_is_resolved_or_lost() -> None:
    coalescing = WorkerCoalescing()
    assert coalescing.lookup("t", 0.0) is True
    assert coalescing.lookup("t", 1.0) is False
    assert coalescing.lookup("u", 1.0) is True
    assert coalescing.lookup("t", COALESCED_S) is True
    coalescing.resolved("t")
    assert coalescing.lookup("t", COALESCED_S + 0.1) is True
    coalescing.disconnected()
    assert coalescing.lookup("u", 1.2) is True


def test_a_backend_gets_one_keepalive_per_interval_and_always_the_last_one() -> None:
    coalescing = WorkerCoalescing()
    assert coalescing.keep_alive("b", 0.0) is True
    assert coalescing.keep_alive("b", 0.2) is False
    assert coalescing.poll(0.5) == []
    assert coalescing.poll(KEEPALIVE_INTERVAL_S) == ["b"]
    assert coalescing.poll(2 * KEEPALIVE_INTERVAL_S) == []
    assert coalescing.keep_alive("b", 3 * KEEPALIVE_INTERVAL_S) is True


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.01, 3.0)), max_size=40))
def test_no_use_of_a_backend_is_lost_and_no_keepalive_is_sent_too_often(uses: list[tuple[str, float]]) -> None:
    coalescing, now = WorkerCoalescing(), 0.0
    sent: dict[str, list[float]] = {"a": [], "b": []}
    used: dict[str, float] = {}
    for backend, passed in uses:
        now += passed
        used[backend] = now
        for due in coalescing.poll(now):
            sent[due].append(now)
        if coalescing.keep_alive(backend, now):
            sent[backend].append(now)
    for due in coalescing.poll(now + FORGOTTEN_AFTER_S):
        sent[due].append(now + FORGOTTEN_AFTER_S)
    for backend, last in used.items():
        assert sent[backend][-1] >= last
        gaps = [later - earlier for earlier, later in pairwise(sent[backend])]
        assert all(gap >= KEEPALIVE_INTERVAL_S - 1e-9 for gap in gaps)
