from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from plane.controller.api.query_params import MAX_ID, stream_position
from plane.protocol.errors import ApiFailure


@pytest.mark.parametrize(
    ("query", "header", "position"),
    [
        ("", None, None),
        ("?after=5", None, 5),
        ("", "7", 7),
        # A browser that reconnects sends both.
        ("?after=5", "7", 7),
        ("?after=5", "", 5),
        ("?after=5", "x", 5),
        ("", str(MAX_ID), MAX_ID),
        ("", str(MAX_ID + 1), None),
    ],
)
def test_a_stream_continues_after_the_last_event_that_its_reader_has(
    query: str, header: str | None, position: int | None
) -> None:
    headers = {} if header is None else {"Last-Event-ID": header}
    assert stream_position(make_mocked_request("GET", f"/ctrl/events{query}", headers=headers)) == position


def test_an_invalid_parameter_is_refused_although_there_is_a_header() -> None:
    with pytest.raises(ApiFailure, match="query parameter after"):
        stream_position(make_mocked_request("GET", "/ctrl/events?after=x", headers={"Last-Event-ID": "7"}))
