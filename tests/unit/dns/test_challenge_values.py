"""Requests to the controller: one at a time for each cluster, cached for a second, bounded in number."""

from __future__ import annotations

import asyncio

import pytest

from plane.dns import challenge_values as module
from plane.dns.challenge_values import CACHE_LIMIT, IN_FLIGHT_LIMIT, CachedValues, ChallengeValues
from plane.protocol.dns_messages import TxtRecordResponse

LIMIT_S = 10.0


class Controller:
    """Counts what it is asked; answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gone = False

    async def ask(self, cluster: str) -> None:
        self.asked.append(cluster)
        if self.gone:
            raise ConnectionError


def values(known: CachedValues | None) -> tuple[str, ...] | None:
    return None if known is None else known.values


async def test_many_ask_once_and_all_hear() -> None:
    controller = Controller()
    values_of = ChallengeValues(controller.ask)
    asking = [asyncio.create_task(values_of.fetch("c")) for _ in range(10)]
    await asyncio.sleep(0)
    values_of.receive(TxtRecordResponse("c", "v", other_values=("w",)))
    async with asyncio.timeout(LIMIT_S):
        assert {values(await task) for task in asking} == {("v", "w")}
    assert controller.asked == ["c"]
    assert values(values_of.cached("c")) == ("v", "w")


async def test_nobody_to_ask_is_known_at_once_to_all() -> None:
    controller = Controller()
    controller.gone = True
    assert await ChallengeValues(controller.ask).fetch("c") is None


async def test_no_answer_is_waited_for_for_so_long_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TXT_RESPONSE_TIMEOUT_S", 0.05)
    controller = Controller()
    values_of = ChallengeValues(controller.ask)
    async with asyncio.timeout(LIMIT_S):
        assert list(await asyncio.gather(values_of.fetch("c"), values_of.fetch("c"))) == [None, None]
        again = asyncio.create_task(values_of.fetch("c"))
        await asyncio.sleep(0)
        values_of.receive(TxtRecordResponse("c", None))
        assert values(await again) == ()
    assert controller.asked == ["c", "c"]


async def test_too_many_questions_are_not_asked() -> None:
    controller = Controller()
    values_of = ChallengeValues(controller.ask)
    asking = [asyncio.create_task(values_of.fetch(f"c{number}")) for number in range(IN_FLIGHT_LIMIT)]
    await asyncio.sleep(0)
    assert await values_of.fetch("one more") is None
    assert len(controller.asked) == IN_FLIGHT_LIMIT
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)


async def test_what_is_remembered_is_forgotten_in_time_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    values_of = ChallengeValues(Controller().ask)
    for number in range(CACHE_LIMIT + 1):
        values_of.receive(TxtRecordResponse(str(number), "v"))
    assert values_of.cached("0") is None
    assert values(values_of.cached(str(CACHE_LIMIT))) == ("v",)
    monkeypatch.setattr(module, "TXT_CACHE_TTL_S", 0.0)
    values_of.receive(TxtRecordResponse("c", "v"))
    assert values_of.cached("c") is None


async def test_a_cluster_had_values_until_a_response_has_none() -> None:
    values_of = ChallengeValues(Controller().ask)
    assert not values_of.had_values("c")
    values_of.receive(TxtRecordResponse("c", "v"))
    assert values_of.had_values("c")
    values_of.receive(TxtRecordResponse("c", None))
    assert not values_of.had_values("c")
