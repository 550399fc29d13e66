"""The collaborative editor of the tutorial in Chromium: two people type in one text at the same time."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from harness.clusters import dev_cluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "editor"


def text_of(page: Page) -> str:
    return page.locator("#text").input_value()


def test_two_people_who_type_at_once_see_the_same_text(chromium: str, tmp_path: Path) -> None:
    with (
        dev_cluster(tmp_path, "--runtime", "process", "--expose", str(EXAMPLE)) as cluster,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        pages = []
        for user in ("ada", "bob"):
            config = {"executable": {"command": [sys.executable, str(EXAMPLE / "document.py")]}}
            url = cluster.connect(key={"name": "letter"}, spawn_config=config, user=user)["url"]
            page = browser.new_page()
            page.goto(url)
            expect(page.locator("#user")).to_have_text(f"You are {user}.")
            pages.append(page)
        ada, bob = pages
        ada.locator("#text").press_sequentially("Dear Bob")
        expect(bob.locator("#text")).to_have_value("Dear Bob")
        # Both at once: one at the start, one at the end, whatever the order of arrival.
        bob.locator("#text").evaluate("text => text.setSelectionRange(0, 0)")
        for left, right in zip("[draft] ", ", hello!", strict=True):
            bob.locator("#text").press(left)
            ada.locator("#text").press(right)
        expect(ada.locator("#text")).to_have_value("[draft] Dear Bob, hello!")
        expect(bob.locator("#text")).to_have_value("[draft] Dear Bob, hello!")
        ada.locator("#text").press("Backspace")
        ada.locator("#text").press("Enter")
        expect(bob.locator("#text")).to_have_value("[draft] Dear Bob, hello\n")
        assert text_of(ada) == text_of(bob)
        browser.close()
