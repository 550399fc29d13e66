"""What a controller remembers between connect statements."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, cast

import pytest

from plane.controller.connect_statements import ConnectStatements
from plane.database.connect import CountedDrone, KeyLookups, KeyQuery, TokenGrant
from plane.database.pool import Database
from plane.decisions.keys.connect_request import HeldKey, KeyLookup
from plane.decisions.keys.drone_selection import DroneCandidate
from plane.protocol.backend_state import BackendStatus
from plane.protocol.keys import KeyConfig
from plane.protocol.notifications import Event, EventKind
from plane.protocol.times import DroneTime

HELD = HeldKey("held", "", live=True, cluster="c", status=BackendStatus.READY, static_token=None, subdomain=None)
DRONES = [CountedDrone(DroneCandidate(number, f"dr-{number}", DroneTime(0)), 3) for number in (1, 2)]


def query(name: str) -> KeyQuery:
    return KeyQuery(KeyConfig(name), TokenGrant("t", "s", None, "{}"), "c", "", best_of=2)


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[int]]:
    """The drones that were not to be counted, of each lookup. Keys that begin with "held" are held."""
    recorded: list[Sequence[int]] = []

    async def look_up_keys(_: Any, queries: Sequence[KeyQuery], uncounted: Sequence[int]) -> KeyLookups:
        recorded.append(uncounted)
        keys = [
            KeyLookup(HELD, lease_left_s=30.0) if each.key.name.startswith("held") else KeyLookup(None)
            for each in queries
        ]
        return KeyLookups(keys, {("c", ""): DRONES})

    monkeypatch.setattr("plane.database.connect.look_up_keys", look_up_keys)
    return recorded


async def test_free_keys_of_a_batch_get_different_drones(uncounted: list[Sequence[int]]) -> None:
    statements = ConnectStatements(cast("Database", None))
    lookups = await statements.look_up_keys([query("a"), query("held"), query("b")])
    assert [lookup.drone and lookup.drone.name for lookup in lookups] == ["dr-1", None, "dr-2"]


async def test_counted_drones_are_not_counted_again_at_once(uncounted: list[Sequence[int]]) -> None:
    statements = ConnectStatements(cast("Database", None))
    await statements.look_up_keys([query("a")])
    await statements.look_up_keys([query("b")])
    assert uncounted == [[], [1, 2]]


async def test_held_key_is_remembered_until_its_backend_is_terminated(uncounted: list[Sequence[int]]) -> None:
    statements = ConnectStatements(cast("Database", None))
    assert not statements.is_held(KeyConfig("held"))
    await statements.look_up_keys([query("held")])
    assert statements.is_held(KeyConfig("held"))
    statements.on_state_event(
        Event(
            kind=EventKind.BACKEND_STATE,
            timestamp=datetime.datetime.now(datetime.UTC),
            payload={"status": "terminated"},
            key="held",
        )
    )
    assert not statements.is_held(KeyConfig("held"))
