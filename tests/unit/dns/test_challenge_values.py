"""Questions to the controller: one for many who ask, remembered for a second, and never more than can be borne."""

from __future__ import annotations

import asyncio

import pytest

from plane.dns import challenge_values as module
from plane.dns.challenge_values import IN_FLIGHT_LIMIT, REMEMBERED_LIMIT, Known, Questions
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


def values(known: Known | None) -> tuple[str, ...] | None:
    return None if known is None else known.values


async def test_many_ask_once_and_all_hear() -> None:
    controller = Controller()
    questions = Questions(controller.ask)
    asking = [asyncio.create_task(questions.ask("c")) for _ in range(10)]
    await asyncio.sleep(0)
    questions.answered(TxtRecordResponse("c", "v", other_values=("w",)))
    async with asyncio.timeout(LIMIT_S):
        assert {values(await task) for task in asking} == {("v", "w")}
    assert controller.asked == ["c"]
    assert values(questions.known("c")) == ("v", "w")


async def test_nobody_to_ask_is_known_at_once_to_all() -> None:
    controller = Controller()
    controller.gone = True
    assert await Questions(controller.ask).ask("c") is None


async def test_no_answer_is_waited_for_for_so_long_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TXT_RESPONSE_TIMEOUT_S", 0.05)
    controller = Controller()
    questions = Questions(controller.ask)
    async with asyncio.timeout(LIMIT_S):
        assert list(await asyncio.gather(questions.ask("c"), questions.ask("c"))) == [None, None]
        again = asyncio.create_task(questions.ask("c"))
        await asyncio.sleep(0)
        questions.answered(TxtRecordResponse("c", None))
        assert values(await again) == ()
    assert controller.asked == ["c", "c"]


async def test_too_many_questions_are_not_asked() -> None:
    controller = Controller()
    questions = Questions(controller.ask)
    asking = [asyncio.create_task(questions.ask(f"c{number}")) for number in range(IN_FLIGHT_LIMIT)]
    await asyncio.sleep(0)
    assert await questions.ask("one more") is None
    assert len(controller.asked) == IN_FLIGHT_LIMIT
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)


async def test_what_is_remembered_is_forgotten_in_time_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = Questions(Controller().ask)
    for number in range(REMEMBERED_LIMIT + 1):
        questions.answered(TxtRecordResponse(str(number), "v"))
    assert questions.known("0") is None
    assert values(questions.known(str(REMEMBERED_LIMIT))) == ("v",)
    monkeypatch.setattr(module, "TXT_CACHE_TTL_S", 0.0)
    questions.answered(TxtRecordResponse("c", "v"))
    assert questions.known("c") is None
