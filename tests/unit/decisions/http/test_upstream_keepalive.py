"""For how long a free connection to a backend is used again."""

from __future__ import annotations

import pytest

from plane.decisions.http.upstream_keepalive import (
    MOST_S,
    announced_timeout_s,
    repeatable_reuse_s,
    unrepeatable_reuse_s,
)


@pytest.mark.parametrize(
    ("field", "announced_s"),
    [
        (b"timeout=5", 5.0),
        (b"timeout=5, max=100", 5.0),
        (b"max=99,TIMEOUT = 20", 20.0),
        (b'timeout="7"', 7.0),
        (b"timeout=0", 0.0),
        (b"timeout=9, timeout=3", 3.0),
        (b"", None),
        (b"max=100", None),
        (b"timeout=soon", None),
        (b"timeout=-1", None),
        (b"mytimeout=5", None),
        (b"timeout=5s", None),
        (b"timeout=99999999999", None),
    ],
)
def test_the_announcement_is_read_or_there_is_none(field: bytes, announced_s: float | None) -> None:
    assert announced_timeout_s(field) == announced_s


@pytest.mark.parametrize("announced_s", [0.0, 1.0, 2.0, 5.0, 3600.0])
def test_a_connection_is_given_up_before_the_backend_closes_it(announced_s: float) -> None:
    for reuse_s in (repeatable_reuse_s(announced_s), unrepeatable_reuse_s(announced_s)):
        assert reuse_s < announced_s or announced_s == reuse_s == 0
        assert reuse_s <= MOST_S


def test_what_cannot_be_repeated_waits_less_where_nothing_is_announced() -> None:
    assert unrepeatable_reuse_s(None) < 2 < repeatable_reuse_s(None) < 5
