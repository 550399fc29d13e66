"""Shared views are rendered once for all pages; mailboxes are bounded and keep the last version."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from plane.controller.console.streams import Mailbox, SharedViews, encode_event
from plane.database.pool import DatabaseUnavailable

WAIT_S = 10.0


def test_an_event_of_several_lines_has_a_data_field_each() -> None:
    assert encode_event("fragment", "<p>\nx") == b"event: fragment\ndata: <p>\ndata: x\n\n"
    assert encode_event("stale", "") == b"event: stale\ndata: \n\n"


async def test_a_slow_page_gets_the_last_version_of_each_part_only() -> None:
    mailbox = Mailbox()
    for version in range(1000):
        mailbox.put("a", encode_event("fragment", str(version)))
    mailbox.put("b", encode_event("usage", "1"))
    assert await mailbox.take(WAIT_S) == encode_event("fragment", "999") + encode_event("usage", "1")
    assert await mailbox.take(0) == b""


class Source:
    """Renders a number, and lets the test wait until it did."""

    def __init__(self) -> None:
        self.rendered = asyncio.Queue[int]()
        self.count = 0
        self.error: Exception | None = None
        self.changed: Callable[[object], None] | None = None
        self.text: str | None = None

    async def render(self) -> dict[str, str]:
        self.count += 1
        self.rendered.put_nowait(self.count)
        if self.error is not None:
            raise self.error
        return {"fragment": self.text or str(self.count)}

    @contextmanager
    def subscribe(self, changed: Callable[[object], None]) -> Iterator[None]:
        self.changed = changed
        try:
            yield
        finally:
            self.changed = None

    async def until_rendered(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.rendered.get()


async def test_many_pages_of_one_view_cost_one_rendering() -> None:
    views, source = SharedViews(), Source()
    mailboxes = [Mailbox() for _ in range(200)]
    watching = [views.watch("v", source.render, mailbox, interval_s=WAIT_S) for mailbox in mailboxes]
    for each in watching:
        each.__enter__()
    texts = {await mailbox.take(WAIT_S) for mailbox in mailboxes}
    assert texts == {encode_event("fragment", "1") + encode_event("stale", "")}
    assert source.count == 1
    assert len(views) == 1
    for each in watching:
        each.__exit__(None, None, None)
    assert len(views) == 0
    await views.end()


async def test_a_page_that_comes_later_gets_the_present_version_at_once() -> None:
    views, source, early, late = SharedViews(), Source(), Mailbox(), Mailbox()
    with views.watch("v", source.render, early, interval_s=WAIT_S):
        first = await early.take(WAIT_S)
        with views.watch("v", source.render, late, interval_s=WAIT_S):
            assert await late.take(0.0) == first
        # The first page still gets what changes.
        assert len(views) == 1
    await views.end()


async def test_a_change_is_rendered_without_waiting_for_the_interval() -> None:
    views, source, mailbox = SharedViews(), Source(), Mailbox()
    with views.watch("v", source.render, mailbox, source.subscribe, interval_s=3600.0):
        await source.until_rendered()
        assert source.changed is not None
        source.changed(None)
        await source.until_rendered()
    await views.end()
    assert source.changed is None


async def test_what_has_not_changed_is_not_sent_again() -> None:
    views, source, mailbox = SharedViews(), Source(), Mailbox()
    source.text = "same"
    with views.watch("v", source.render, mailbox, interval_s=0.0):
        await mailbox.take(WAIT_S)
        await source.until_rendered()
        await source.until_rendered()
        assert await mailbox.take(0.0) == b""
    await views.end()


async def test_pages_are_notified_of_a_database_that_does_not_respond_and_recover() -> None:
    views, source, mailbox = SharedViews(), Source(), Mailbox()
    source.error = DatabaseUnavailable("it does <not> respond")
    with views.watch("v", source.render, mailbox, interval_s=0.0):
        assert await mailbox.take(WAIT_S) == encode_event("stale", "Not up to date: it does <not> respond")
        source.error = None
        assert b"event: stale\ndata: \n" in await mailbox.take(WAIT_S)
    await views.end()


async def test_a_view_that_failed_starts_again_with_the_next_page(capsys: pytest.CaptureFixture[str]) -> None:
    views, source, mailbox, later = SharedViews(), Source(), Mailbox(), Mailbox()
    source.error = RuntimeError("a bug")
    with views.watch("v", source.render, mailbox):
        await source.until_rendered()
        await asyncio.sleep(0)
        source.error = None
        with views.watch("v", source.render, later):
            assert b"event: fragment" in await later.take(WAIT_S)
            assert b"event: fragment" in await mailbox.take(WAIT_S)
    await views.end()
    assert "console view failed" in capsys.readouterr().out
