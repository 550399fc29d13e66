"""The sequence of a connect request, as a script of results from the database."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from plane.controller.api.connect import PendingConnect, connect
from plane.controller.context import Context
from plane.database.connect import KeyQuery, NewBackend
from plane.database.pool import DatabaseUnavailable
from plane.decisions.keys.connect_request import HeldKey, KeyLookup
from plane.decisions.keys.drone_selection import DroneCandidate
from plane.protocol.backend_state import BackendStatus
from plane.protocol.control_api import ConnectRequest, ConnectResponse
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.keys import KeyConfig
from plane.protocol.spawn import SpawnConfig
from plane.protocol.times import DroneTime

HELD = HeldKey("held", "", live=True, cluster="c", status=BackendStatus.READY, static_token=None, subdomain=None)
FREE = KeyLookup(None, drone=DroneCandidate(1, "dr-a", DroneTime(1000)), db_now_ms=5)
REQUEST = ConnectRequest(key=KeyConfig("k"), spawn_config=SpawnConfig(executable={}))


class Script:
    """Batchers whose results a test has listed; ``calls`` are the names of those that were used."""

    def __init__(self, *results: Any, is_held: bool = False) -> None:
        self._results = list(results)
        self.calls: list[str] = []
        self.queries: list[KeyQuery] = []
        self.spawned: list[NewBackend] = []
        self.context = cast(
            "Context",
            SimpleNamespace(
                settings=SimpleNamespace(default_cluster="c", best_of=2),
                tracer=None,
                public_url="http://controller",
                connect_statements=SimpleNamespace(is_held=lambda _: is_held),
                statements=SimpleNamespace(
                    reuses=Scripted("reuses", self), lookups=Scripted("lookups", self), spawns=Scripted("spawns", self)
                ),
            ),
        )

    def next_result(self, name: str, item: Any) -> Any:
        self.calls.append(name)
        (self.spawned if name == "spawns" else self.queries).append(item)
        return self._results.pop(0)


class Scripted:
    def __init__(self, name: str, script: Script) -> None:
        self._name = name
        self._script = script

    def submit_with_deadline(self, item: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        result = self._script.next_result(self._name, item)
        if isinstance(result, Exception):
            future.set_exception(result)
        elif result is not ...:
            future.set_result(result)
        return future

    async def execute(self, item: Any) -> Any:
        return await self.submit_with_deadline(item)


async def test_held_key_needs_one_statement() -> None:
    script = Script(KeyLookup(HELD), is_held=True)
    response = await connect(script.context, REQUEST)
    assert (response.backend_id, response.spawned) == ("held", False)
    assert script.calls == ["reuses"]


async def test_key_whose_holder_has_just_ended_is_looked_up() -> None:
    script = Script(None, KeyLookup(HELD), is_held=True)
    assert (await connect(script.context, REQUEST)).backend_id == "held"
    assert script.calls == ["reuses", "lookups"]
    assert script.queries[0] is script.queries[1]


async def test_free_key_spawns_a_backend() -> None:
    script = Script(FREE, True)
    response = await connect(script.context, REQUEST)
    assert (response.spawned, response.drone) == (True, "dr-a")
    assert script.calls == ["lookups", "spawns"]
    assert (script.spawned[0].key.token, script.spawned[0].leased_at) == (5, DroneTime(1000))


async def test_lost_race_is_retried_with_a_new_token() -> None:
    script = Script(FREE, False, KeyLookup(HELD))
    assert (await connect(script.context, REQUEST)).backend_id == "held"
    assert script.calls == ["lookups", "spawns", "lookups"]
    assert script.queries[0].grant.token != script.queries[1].grant.token


async def test_third_lost_race_fails() -> None:
    expired = KeyLookup(replace(HELD, live=False))
    script = Script(FREE, False, expired, FREE, False)
    with pytest.raises(ApiFailure) as caught:
        await connect(script.context, REQUEST)
    assert (caught.value.status, caught.value.kind) == (500, ApiErrorKind.FAILED_TO_ACQUIRE_KEY)
    assert script.calls == ["lookups", "spawns", "lookups", "lookups", "spawns"]


@pytest.mark.parametrize("results", [(DatabaseUnavailable("away"),), (FREE, DatabaseUnavailable("away"))])
async def test_unavailable_database_fails_the_request(results: tuple[Any, ...]) -> None:
    with pytest.raises(DatabaseUnavailable):
        await connect(Script(*results).context, REQUEST)


async def test_invalid_request_reaches_no_statement() -> None:
    script = Script()
    with pytest.raises(ApiFailure):
        await connect(script.context, ConnectRequest(key=KeyConfig("\0")))
    assert script.calls == []


@pytest.mark.parametrize("results", [(...,), (FREE, ...)])
async def test_cancellation_finishes_the_request(results: tuple[Any, ...]) -> None:
    outcomes: list[ConnectResponse | BaseException] = []
    pending = PendingConnect(Script(*results).context, REQUEST, outcomes.append)
    for _ in range(5):
        await asyncio.sleep(0)
    pending.waits_for.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError]
