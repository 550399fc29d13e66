"""Which events a caller may read, and from where."""

from __future__ import annotations

import pytest

from plane.decisions.access import Role
from plane.decisions.event_feed import check_cursor, expand_types, readable_types
from plane.protocol.errors import ApiFailure
from plane.protocol.event_feed import EventType

DRONES = frozenset(each for each in EventType if each.startswith("drone."))
CALLS = frozenset(each for each in EventType if each.is_admin)


def test_a_star_stands_for_any_rest() -> None:
    assert expand_types(["drone.*", "backend.ready"]) == DRONES | {EventType.BACKEND_READY}
    assert expand_types(["*"]) == frozenset(EventType)


@pytest.mark.parametrize("pattern", ["", "backend", "backend.gone", "*.ready", "x.*"])
def test_a_pattern_without_a_type_is_refused_with_the_types(pattern: str) -> None:
    with pytest.raises(ApiFailure, match=r"matches no type.*backend\.scheduled") as refused:
        expand_types(["drone.*", pattern])
    assert refused.value.status == 400


@pytest.mark.parametrize("role", [None, Role.ADMIN])
def test_administrators_read_every_type(role: Role | None) -> None:
    assert readable_types(None, role) is None
    assert readable_types(CALLS, role) == CALLS


def test_others_read_all_but_calls() -> None:
    assert readable_types(None, Role.READ) == frozenset(EventType) - CALLS
    assert readable_types(CALLS | DRONES, Role.CONNECT) == DRONES
    with pytest.raises(ApiFailure, match="role admin") as refused:
        readable_types(CALLS, Role.READ)
    assert refused.value.status == 403


@pytest.mark.parametrize(("after", "start"), [(0, 50), (50, 50), (51, 51), (90, 90)])
def test_a_cursor_within_the_feed_is_where_reading_starts(after: int, start: int) -> None:
    assert check_cursor(after, 50, 90) == start


@pytest.mark.parametrize(("after", "continues_after"), [(49, 50), (91, 90)])
def test_a_cursor_outside_the_feed_is_refused_with_one_that_is_inside(after: int, continues_after: int) -> None:
    with pytest.raises(ApiFailure, match=str(continues_after)) as refused:
        check_cursor(after, 50, 90)
    assert (refused.value.status, refused.value.cursor) == (410, continues_after)
