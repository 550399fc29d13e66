"""What a controller remembers between connect statements."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from typing import Any, cast
from unittest.mock import Mock

import pytest

from plane.controller.connect_statements import ConnectStatements
from plane.database.connect import KeyLookups, KeyQuery, NewBackend, TokenGrant
from plane.database.pool import Database
from plane.decisions.keys.connect_request import HeldKey, KeyLookup
from plane.decisions.keys.drone_selection import CANDIDATES_VALID_S, CountedDrone, DroneCandidate
from plane.protocol.backend_state import BackendStatus
from plane.protocol.keys import KeyConfig
from plane.protocol.notifications import Event, EventKind
from plane.protocol.times import DroneTime

HELD = HeldKey("held", "", live=True, cluster="c", status=BackendStatus.READY, static_token=None, subdomain=None)
DRONES = [CountedDrone(DroneCandidate(number, f"dr-{number}", DroneTime(0)), 3) for number in (1, 2)]


def query(name: str) -> KeyQuery:
    return KeyQuery(KeyConfig(name), TokenGrant("t", "s", None, "{}"), "c", "", best_of=2)


class FakeDatabase:
    """Responds to the statements. Keys that begin with "held" are held.

    Attributes:
        known: the pools whose drones were not to be read, of each lookup.
        drones: those that are there.
    """

    def __init__(self) -> None:
        self.known: list[list[tuple[str, str]]] = []
        self.drones = DRONES

    async def look_up_keys(self, _: Any, queries: Sequence[KeyQuery], known: Collection[tuple[str, str]]) -> KeyLookups:
        self.known.append(list(known))
        keys = [
            KeyLookup(HELD, lease_left_s=30.0) if each.key.name.startswith("held") else KeyLookup(None)
            for each in queries
        ]
        read = not known and any(key.held is None for key in keys)
        return KeyLookups(keys, {} if known else {("c", ""): self.drones if read else []})

    async def spawn_backends(self, _: Any, wanted: Sequence[NewBackend]) -> list[bool]:
        return [False] * len(wanted)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> FakeDatabase:
    fake = FakeDatabase()
    monkeypatch.setattr("plane.database.connect.look_up_keys", fake.look_up_keys)
    monkeypatch.setattr("plane.database.connect.spawn_backends", fake.spawn_backends)
    return fake


async def chosen(statements: ConnectStatements, *names: str) -> list[str | None]:
    lookups = await statements.look_up_keys([query(name) for name in names])
    return [None if lookup.drone is None else lookup.drone.name for lookup in lookups]


async def test_free_keys_get_different_drones(database: FakeDatabase) -> None:
    statements = ConnectStatements(cast("Database", None))
    assert await chosen(statements, "a", "held", "b") == ["dr-1", None, "dr-2"]
    assert await chosen(statements, "c") == ["dr-1"]


async def test_drones_are_read_again_after_a_moment(database: FakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = ConnectStatements(cast("Database", None))
    await chosen(statements, "a")
    database.drones = [CountedDrone(DroneCandidate(3, "dr-3", DroneTime(0)), 0)]
    assert await chosen(statements, "b") == ["dr-2"]
    later = statements._clock() + CANDIDATES_VALID_S
    monkeypatch.setattr(statements, "_clock", lambda: later)
    assert await chosen(statements, "b") == ["dr-3"]
    assert database.known == [[], [("c", "")], []]


async def test_drones_are_read_again_if_a_backend_was_not_stored(database: FakeDatabase) -> None:
    statements = ConnectStatements(cast("Database", None))
    await chosen(statements, "a")
    database.drones = [CountedDrone(DroneCandidate(3, "dr-3", DroneTime(0)), 0)]
    new = Mock(cluster="c", config=Mock(pool=""))
    assert await statements.spawn_backends([new]) == [False]
    assert await chosen(statements, "a") == ["dr-3"]


async def test_batch_that_needs_no_drone_leaves_those_that_are_known(database: FakeDatabase) -> None:
    statements = ConnectStatements(cast("Database", None))
    assert await chosen(statements, "held") == [None]
    assert await chosen(statements, "a") == ["dr-1"]
    assert await chosen(statements, "held") == [None]
    assert await chosen(statements, "b") == ["dr-2"]
    assert database.known == [[], [], [("c", "")], [("c", "")]]


async def test_absence_of_drones_is_not_remembered(database: FakeDatabase) -> None:
    statements = ConnectStatements(cast("Database", None))
    database.drones = []
    assert await chosen(statements, "a") == [None]
    database.drones = DRONES
    assert await chosen(statements, "a") == ["dr-1"]


async def test_held_key_is_remembered_until_its_backend_is_terminated(database: FakeDatabase) -> None:
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
