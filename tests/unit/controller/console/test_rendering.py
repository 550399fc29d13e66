"""Texts of the pages: units, and everything from the data escaped."""

from __future__ import annotations

import pytest

from plane.controller.console.rendering import Renderer, duration, moment, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.02, "0.02 s"), (12.7, "12 s"), (60, "1 min"), (3725, "1 h 2 min"), (90061, "1 d 1 h")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_moment_is_utc() -> None:
    assert moment(1_800_000_000.9) == "2027-01-15 08:00:00"


@pytest.mark.parametrize(("count", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")])
def test_a_size_has_its_unit(count: int, text: str) -> None:
    assert size(count) == text


def test_data_is_text() -> None:
    renderer = Renderer(lambda name: f"/static/{name}")
    text = renderer.fragment("notice.html", message="<script>alert(1)</script>", is_error=False)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
