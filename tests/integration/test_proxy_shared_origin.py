"""What the response fields of a backend at one path of the cluster's host may not do to the backends at other paths."""

from __future__ import annotations

import pytest

from harness.proxy_world import CLUSTER, OK, get, says, status, world
from plane.decisions.http.shared_origin import FIELDS

ALL_FIELDS = b"".join(f"{field.name.title()}: of-the-backend\r\n".encode() for field in FIELDS)
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + ALL_FIELDS + b"\r\nok"


def names_of(response: bytes) -> set[str]:
    """The names in a response's head."""
    head = response.partition(b"\r\n\r\n")[0].decode("latin-1")
    return {line.partition(":")[0].lower() for line in head.split("\r\n")[1:]}


async def test_fields_for_the_whole_origin_are_dropped_where_it_is_shared() -> None:
    async with world() as it:
        it.add_route("own", subdomain="sub")
        it.exchange = says(RESPONSE)
        shared = names_of(await it.send(get("/t/", "Connection: close")))
        assert {field.name for field in FIELDS if field.name in shared} == {f.name for f in FIELDS if not f.dropped}
        own = names_of(await it.send(get("/own/", "Connection: close", host=f"sub.{CLUSTER}")))
        assert {field.name for field in FIELDS} <= own


async def test_fields_for_the_whole_origin_are_dropped_from_interim_responses_and_upgrades() -> None:
    async with world() as it:
        for status_line in (b"103 Early Hints", b"101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw"):
            it.exchange = says(b"HTTP/1.1 " + status_line + b"\r\nService-Worker-Allowed: /\r\nNEL: x\r\n\r\n" + OK)
            response = await it.send(get("/t/", "Connection: Upgrade, close", "Upgrade: raw"))
            assert response.startswith(b"HTTP/1.1 " + status_line[:3])
            assert not {"service-worker-allowed", "nel"} & names_of(response)


@pytest.mark.parametrize("target", ["/t", "/t?x=/y", "/s.static"])
async def test_a_script_at_the_token_itself_may_serve_the_folder_of_the_token_only(target: str) -> None:
    async with world() as it:
        it.add_route("s.static", secret_token="", user=None, user_data=None)
        it.exchange = says(RESPONSE)
        response = await it.send(get(target, "Connection: close", "Service-Worker: script"))
        token = target.partition("?")[0]
        assert response.lower().count(b"service-worker-allowed:") == 1
        assert f"\r\nService-Worker-Allowed: {token}/\r\n".encode() in response


async def test_a_backend_with_a_subdomain_decides_for_its_whole_origin() -> None:
    async with world() as it:
        it.add_route("own", subdomain="sub")
        it.exchange = says(RESPONSE)
        response = await it.send(get("/own", "Connection: close", host=f"sub.{CLUSTER}"))
        assert response.lower().count(b"service-worker-allowed:") == 1
        assert b"\r\nService-Worker-Allowed: of-the-backend\r\n" in response


@pytest.mark.parametrize("subdomain", [None, "sub"])
async def test_a_referrer_policy_is_added_if_the_backend_sets_none(subdomain: str | None) -> None:
    async with world() as it:
        it.add_route("r", subdomain=subdomain)
        request = get("/r/", "Connection: close", host=f"{subdomain}.{CLUSTER}" if subdomain else CLUSTER)
        for backend_sets, seen in ((b"", b"same-origin"), (b"referrer-policy: origin\r\n", b"origin")):
            it.exchange = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + backend_sets + b"\r\nok")
            response = await it.send(request)
            assert status(response) == 200
            assert response.lower().count(b"\r\nreferrer-policy: ") == 1
            assert b"referrer-policy: " + seen + b"\r\n" in response.lower()
