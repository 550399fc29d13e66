"""Requests generated from the API's description: every response matches it, and none is an internal error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS

from harness.controllers import controller_api
from harness.fake_node import obedient_drone
from plane.controller.api.openapi import describe
from plane.controller.app import all_endpoints

# Sockets and endless streams have tests of their own.
DESCRIPTION = describe([e for e in all_endpoints() if not e.is_socket and e.media == "application/json"])
schema = schemathesis.openapi.from_dict(DESCRIPTION)

CHECKED = [
    CHECKS.get_one(name)
    for name in (
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
    )
]


@pytest.fixture(scope="module")
def base(module_postgres_url: str) -> Iterator[str]:
    """A controller with a drone, in a thread of its own, since schemathesis blocks."""
    loop = asyncio.new_event_loop()
    started: asyncio.Future[str] = loop.create_future()
    stop = asyncio.Event()

    async def serve() -> None:
        async with controller_api(module_postgres_url) as api, obedient_drone(api.base):
            started.set_result(api.base)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    url: str = asyncio.run_coroutine_threadsafe(_value(started), loop).result(30)
    yield url
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


async def _value(future: asyncio.Future[str]) -> str:
    return await future


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_response_matches_the_description(case: Any, base: str) -> None:
    response = case.call(base_url=base)
    # The status for a cluster without drones is 500, like in Plane 0.5.5.
    assert response.status_code < 500 or response.json()["kind"] == "NoDroneAvailable"
    case.validate_response(response, checks=CHECKED)
