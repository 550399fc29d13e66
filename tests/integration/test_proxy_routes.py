"""Where tokens lead, and no longer lead: expiry, floods, silence, revocation, the end of a backend."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.proxy_world import LIMIT_S, World, get, status, world
from plane.decisions.routing import pending_lookups
from plane.proxy.data_plane import route_lookup

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
UPGRADE = ("Connection: Upgrade", "Upgrade: raw")


async def tell(it: World, variant: str, content: Any) -> None:
    assert it.controller is not None
    await it.controller.send_str(json.dumps({variant: content}))


async def one_of_each(it: World, token: str) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A tunnel, and a download that goes on, opened with ``token``."""
    opened = []
    for fields, until in ((UPGRADE, b"\r\n\r\n"), ((), b"\r\n\r\nx")):
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get(f"/{token}/", *fields))
        await reader.readuntil(until)
        opened.append((reader, writer))
    return opened


async def switch_or_go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if b"Upgrade: raw" in await reader.readuntil(b"\r\n\r\n"):
        writer.write(SWITCH)
    else:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
    await reader.read(-1)


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


async def test_connections_of_a_revoked_token_are_cut() -> None:
    async with world() as it:
        it.exchange = switch_or_go_on
        for token in ("t", "u"):
            it.add_route(token, backend_id="b")
        async with asyncio.timeout(LIMIT_S):
            revoked, kept = await one_of_each(it, "t"), await one_of_each(it, "u")
            await tell(it, "TokensRevoked", {"backend": "b", "tokens": ["t"]})
            for reader, writer in revoked:
                assert await ended(reader)
                writer.close()
            assert status(await it.send(get("/t/", "Connection: close"))) == 410
            # Another token of the same backend goes on.
            for reader, writer in kept:
                assert not reader.at_eof()
                writer.close()


async def test_a_revocation_cuts_what_tokens_of_the_user_that_have_expired_had_opened() -> None:
    async with world() as it:
        it.exchange = switch_or_go_on
        it.add_route("old", backend_id="b", user="ann", expires_in_ms=500)
        it.add_route("new", backend_id="b", user="ann", expires_in_ms=600_000)
        it.add_route("other", backend_id="b", user="bob", expires_in_ms=500)
        async with asyncio.timeout(LIMIT_S):
            opened = {token: await one_of_each(it, token) for token in ("old", "new", "other")}
            await asyncio.sleep(0.6)
            # Its row is deleted by now. The new one was given after the revocation.
            await tell(it, "TokensRevoked", {"backend": "b", "tokens": [], "user": "ann"})
            for reader, _ in opened["old"]:
                assert await ended(reader)
            for reader, _ in opened["new"] + opened["other"]:
                assert not reader.at_eof()
            for connections in opened.values():
                for _, writer in connections:
                    writer.close()


async def test_a_response_in_transit_does_not_restore_a_revoked_token() -> None:
    async with world() as it:
        it.silent = True
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get())
        async with asyncio.timeout(LIMIT_S):
            await it.until_asked()
            await tell(it, "TokensRevoked", {"backend": "b-t", "tokens": ["t"]})
            assert status(await reader.readuntil(b"\r\n\r\n")) == 410
            await tell(it, "RouteInfoResponse", {"token": "t", "route_info": it.routes["t"]})
            await asyncio.sleep(0.1)
            assert status(await it.send(get("/t/", "Connection: close"))) == 410
        writer.close()
        assert it.heard == []


async def test_the_proxy_announces_its_extensions() -> None:
    async with world() as it:
        assert it.handshake["extensions"] == ["revocation", "routes"]


@pytest.mark.parametrize("extensions", [[], ["routes"]])
async def test_lookups_of_the_same_moment_are_one_message_where_the_controller_understands_it(
    extensions: list[str],
) -> None:
    async with world() as it:
        it.silent, it.extensions = True, extensions
        tokens = [f"many-{number}" for number in range(5)]
        for token in tokens:
            it.add_route(token)
        async with asyncio.timeout(LIMIT_S):
            requests = [asyncio.create_task(it.send_and_wait(get(f"/{token}/"))) for token in tokens]
            while set(it.asked) < set(tokens):
                await asyncio.sleep(0.01)
            # All that are pending are sent again on the next connection.
            it.asked, it.silent = [], False
            assert it.controller is not None
            await it.controller.close(code=1001)
            assert {status(response) for response in await asyncio.gather(*requests)} == {200}
        assert sorted(it.asked) == tokens
        assert it.lists == (1 if extensions else 0)


async def test_the_end_of_a_backend_cuts_its_stalled_requests() -> None:
    async with world() as it:
        it.exchange = switch_or_go_on
        async with asyncio.timeout(LIMIT_S):
            # The backend's machine is gone: nothing ends these connections but the proxy.
            opened = await one_of_each(it, "t")
            await tell(it, "BackendRemoved", {"backend": "b-t"})
            for reader, writer in opened:
                assert await ended(reader)
                writer.close()


async def test_an_expired_token_opens_nothing_and_open_connections_continue() -> None:
    async with world() as it:
        it.exchange = switch_or_go_on
        it.add_route("t", expires_in_ms=300)
        async with asyncio.timeout(LIMIT_S):
            opened = await one_of_each(it, "t")
            await asyncio.sleep(0.4)
            it.routes["t"] = None
            assert status(await it.send(get("/t/", "Connection: close"))) == 410
            for reader, writer in opened:
                assert not reader.at_eof()
                writer.close()


async def test_a_flood_of_bad_tokens_does_not_affect_good_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_lookup, "LOOKUPS_LIMIT", 50)
    async with world() as it:
        assert status(await it.send(get("/t/", "Connection: close"))) == 200
        it.silent = True
        flood = []
        for number in range(200):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            writer.write(get(f"/bad-{number}/"))
            flood.append((reader, writer))
        async with asyncio.timeout(LIMIT_S):
            # The requests that have waited longest failed, because there are too many.
            refused = [await flood[0][0].readuntil(b"\r\n\r\n"), await flood[149][0].readuntil(b"\r\n\r\n")]
            assert [status(response) for response in refused] == [504, 504]
            assert status(await it.send(get("/t/", "Connection: close"))) == 200
            # Nor does it keep the proxy from finding out about another one.
            it.silent = False
            it.add_route("other")
            assert status(await it.send(get("/other/", "Connection: close"))) == 200
        assert it.service.routes.pending_count <= 50
        for _, writer in flood:
            writer.transport.abort()


async def test_a_lookup_without_a_response_is_a_504_and_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_lookups, "RESPONSE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(route_lookup, "POLL_INTERVAL_S", 0.05)
    async with world() as it:
        it.silent = True
        assert status(await it.send(get("/t/", "Connection: close"))) == 504
        it.silent = False
        assert status(await it.send(get("/t/", "Connection: close"))) == 200
        assert it.asked == ["t", "t"]


async def test_a_request_in_flight_counts_as_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plane.decisions.routing.activity_monitor.HEARTBEAT_INTERVAL_S", 0.2)
    monkeypatch.setattr("plane.proxy.data_plane.keepalive_reporter.IDLE_POLL_INTERVAL_S", 0.05)
    async with world() as it:
        it.exchange = switch_or_go_on
        async with asyncio.timeout(LIMIT_S):
            opened = await one_of_each(it, "t")
            opened[0][1].close()
            it.kept_alive.clear()
            # A quiet download alone, without a tunnel.
            while len(it.kept_alive) < 4:
                await asyncio.sleep(0.05)
            assert set(it.kept_alive) == {"b-t"}
            opened[1][1].close()


async def test_no_spelling_of_the_proxys_fields_passes_and_connection_removes_none() -> None:
    async with world() as it:
        forged = [
            "x_verified-username: eve",
            "X-Verified_Username: eve",
            "Connection: x-verified-username, x-verified-path",
        ]
        assert status(await it.send(get("/t/", *forged))) == 200
        heard = it.heard[0].lower()
        assert b"eve" not in heard
        assert heard.count(b"\r\nx-verified-username: ann\r\n") == 1
        assert heard.count(b"\r\nx-verified-path: /t/\r\n") == 1


async def test_user_data_reaches_the_backend_as_ascii() -> None:
    async with world() as it:
        it.add_route("t", user_data={"name": "Zoë\u2028🙂"})
        assert status(await it.send(get())) == 200
        assert b'\r\nx-verified-user-data: {"name":"Zo\\u00eb\\u2028\\ud83d\\ude42"}\r\n' in it.heard[0]


async def test_the_referer_that_the_backend_gets_has_no_token() -> None:
    async with world() as it:
        for said, seen in (
            ("http://localhost:9/t/page?a=b", b"http://localhost:9/page?a=b"),
            ("http://localhost:9/another-token", b"http://localhost:9/"),
            ("https://sub.localhost:9/t/", b"https://sub.localhost:9/"),
            ("https://elsewhere.example/t/page", b"https://elsewhere.example/t/page"),
            ("/t/page", b"/page"),
        ):
            assert status(await it.send(get("/t/", f"Referer: {said}", "Connection: close"))) == 200
            assert b"\r\nReferer: " + seen + b"\r\n" in it.heard[-1]


async def test_the_token_is_shortened_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pending_lookups, "RESPONSE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(route_lookup, "POLL_INTERVAL_S", 0.05)
    token = "a-token-that-nobody-may-read-in-a-log"
    async with world() as it:
        it.silent = True
        assert status(await it.send(get(f"/{token}/", "Connection: close"))) == 504
        it.silent = False
        it.add_route(token, address="127.0.0.1:1", backend_id="b")
        assert status(await it.send(get(f"/{token}/", "Connection: close"))) == 502
    said = "".join(capfd.readouterr())
    assert "route lookup timed out" in said
    assert token not in said


async def until_disconnected(it: World) -> None:
    assert it.controller is not None
    it.gone = True
    await it.controller.close()
    while not it.service.missing:
        await asyncio.sleep(0.01)


async def test_a_route_that_ended_while_disconnected_is_not_followed_after_a_reconnect() -> None:
    async with world() as it:
        assert status(await it.send(get("/t/", "Connection: close"))) == 200
        async with asyncio.timeout(LIMIT_S):
            await until_disconnected(it)
            # Known, and followed for a while.
            assert status(await it.send(get("/t/", "Connection: close"))) == 200
            it.routes["t"] = None
            it.gone = False
            await it.until_ready()
            # Another backend has the port by now.
            heard = len(it.heard)
            assert status(await it.send(get("/t/", "Connection: close"))) == 410
        assert len(it.heard) == heard


async def test_routes_are_not_followed_after_a_lease_without_a_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plane.decisions.routing.route_cache.DISCONNECTED_LIFETIME_S", 0.3)
    async with world() as it:
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            # Its connection to the backend is in the pool afterwards.
            writer.write(get("/t/"))
            assert status(await reader.readuntil(b"\r\n\r\nok")) == 200
            await until_disconnected(it)
            # Longer: a timer of the event loop counts from the begin of its turn, and may be early.
            await asyncio.sleep(0.6)
            heard = len(it.heard)
            writer.write(get("/t/"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert status(head) == 503
            assert b"\r\nRetry-After: 5\r\n" in head
            writer.close()
            page = await it.send(get("/t/", "Accept: text/html", "Connection: close"))
            assert status(page) == 503
            assert b"without a controller for too long" in page
            assert len(it.heard) == heard
            it.gone = False
            await it.until_ready()
            assert status(await it.send(get("/t/", "Connection: close"))) == 200


async def test_an_open_connection_outlives_the_lease_of_its_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plane.decisions.routing.route_cache.DISCONNECTED_LIFETIME_S", 0.1)
    async with world() as it:
        it.exchange = it.switch_and_echo
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            writer.write(get("/t/", *UPGRADE))
            await reader.readuntil(b"\r\n\r\n")
            await until_disconnected(it)
            await asyncio.sleep(0.2)
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            writer.close()


async def test_a_response_in_transit_does_not_restore_an_ended_backend() -> None:
    async with world() as it:
        it.silent = True
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get())
        async with asyncio.timeout(LIMIT_S):
            await it.until_asked()
            await tell(it, "BackendRemoved", {"backend": "b-t"})
            await tell(it, "RouteInfoResponse", {"token": "t", "route_info": it.routes["t"]})
            assert status(await reader.readuntil(b"\r\n\r\n")) == 410
        writer.close()
        assert it.heard == []


async def test_a_proxy_that_was_suspended_looks_routes_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as it:
        assert status(await it.send(get("/t/", "Connection: close"))) == 200
        # Seen by its clock, which goes on while it does not.
        clock = it.service.routes._clock
        monkeypatch.setattr(it.service.routes, "_clock", lambda: clock() + route_lookup.SUSPENDED_AFTER_S + 1)
        it.routes["t"] = None
        assert status(await it.send(get("/t/", "Connection: close"))) == 410
        assert it.asked == ["t", "t"]
