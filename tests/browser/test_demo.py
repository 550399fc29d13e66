"""The demo in Chromium, as a person meets it: front page, button, two tabs on one key, another key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from harness.clusters import Cluster, dev_cluster


@pytest.fixture
def pages(chromium: str, tmp_path: Path) -> Iterator[tuple[Cluster, list[Page]]]:
    """A cluster, and three tabs on its front page."""
    with dev_cluster(tmp_path) as cluster, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tabs = [browser.new_page(viewport={"width": 800, "height": 600}) for _ in range(3)]
        for tab in tabs:
            tab.goto(cluster.control_urls[0] + "/")
        yield cluster, tabs
        browser.close()


def open_key(page: Page, key: str) -> None:
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Open the demo").click()
    page.wait_for_url("**/*/")
    expect(page.locator("#state")).to_contain_text("connected")


def test_two_tabs_see_each_other_and_another_key_has_another_process(
    pages: tuple[Cluster, list[Page]], tmp_path: Path
) -> None:
    _, (one, two, other) = pages
    one.screenshot(path=tmp_path / "front.png")
    for page, key in ((one, "shared"), (two, "shared"), (other, "another")):
        open_key(page, key)
    one.get_by_role("button", name="one more").click(click_count=1)
    two.get_by_role("button", name="one more").click(click_count=1)
    for page in (one, two):
        expect(page.locator("#count")).to_have_text("2")
        expect(page.locator("#state")).to_have_text("connected, 2 tabs here")
    two.get_by_label("Text that everyone").fill("written in the second tab")
    expect(one.get_by_label("Text that everyone")).to_have_value("written in the second tab")
    expect(other.locator("#count")).to_have_text("0")
    assert one.locator("#backend").inner_text() == two.locator("#backend").inner_text()
    assert other.locator("#backend").inner_text() != one.locator("#backend").inner_text()
    assert one.locator("#key").inner_text() == "shared"
    assert int(one.locator("#fencing").inner_text()) > 0
    for name, page in (("one", one), ("two", two), ("other", other)):
        page.screenshot(path=tmp_path / f"{name}.png")


def test_an_error_is_shown_where_one_looks(pages: tuple[Cluster, list[Page]]) -> None:
    cluster, (page, *_) = pages
    page.route("**/dev/open", lambda route: route.fulfill(status=500, json={"message": "No active drone available."}))
    page.get_by_role("button", name="Open the demo").click()
    expect(page.get_by_role("alert")).to_have_text("No active drone available.")
    assert page.url == cluster.control_urls[0] + "/"


def test_the_front_page_fits_a_telephone(pages: tuple[Cluster, list[Page]]) -> None:
    _, (page, *_) = pages
    button = page.get_by_role("button", name="Open the demo")
    one_line = button.bounding_box()
    page.set_viewport_size({"width": 360, "height": 700})
    on_telephone = button.bounding_box()
    assert one_line
    assert on_telephone
    assert on_telephone["height"] == one_line["height"]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
