"""The proxy between a raw client and a raw backend, so that every byte is under control."""

from __future__ import annotations

import asyncio
import json

import pytest

from harness.proxy_world import CLUSTER, LIMIT_S, OK, get, says, status, world


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (get("/ready"), 200),
        (get("/"), 400),
        (get(f"/{'x' * 43}/"), 410),
        (get("/t/", host="other.example"), 403),
        (get("/t/", host=f"sub.{CLUSTER}"), 403),
        (b"GET /t/ HTTP/1.1\r\n\r\n", 400),
        (get("/t/", "Host: again"), 400),
        (get("/t/", host="a b"), 400),
        (get("/t/"), 200),
        (get("/t"), 200),
        (get("/t?q"), 200),
    ],
)
async def test_each_form_of_a_request_gets_its_status(request_bytes: bytes, expected: int) -> None:
    async with world() as it:
        response = await it.send(request_bytes)
        assert status(response) == expected
        assert b"\r\nserver: Plane/" in response
        assert b"Access-Control-Allow-Origin: *" in response
        if expected == 410:
            assert response.endswith(b"Content-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        ("/t", "/"),
        ("/t/", "/"),
        ("/t/a/b?c=d&e", "/a/b?c=d&e"),
        ("/t?x=/y", "/?x=/y"),
        ("/t//a/../%2e%2F'\"", "//a/../%2e%2F'\""),
        ("/s.static/a?b", "/s.static/a?b"),
    ],
)
async def test_paths_are_passed_on_byte_for_byte(target: str, forwarded: str) -> None:
    async with world() as it:
        it.add_route("s.static", secret_token="", user=None, user_data=None)
        assert status(await it.send(get(target))) == 200
        line, *fields = it.heard[0].decode().split("\r\n")
        assert line == f"GET {forwarded} HTTP/1.1"
        assert f"x-verified-path: {target.partition('?')[0]}" in fields
        if target.startswith("/s."):
            assert "x-verified-secret: " in fields
            assert not [field for field in fields if field.startswith("x-verified-user")]


async def test_forged_fields_never_reach_the_backend() -> None:
    async with world() as it:
        forged = [
            "X-Verified-Username: eve",
            "x_verified_username: eve",
            "X-Verified_Secret: eve",
            "X_VERIFIED-backend: eve",
            "x-verified-anything: eve",
            "X.Verified.Username: eve",
            "X~Verified!#$%&'*+-.^_`|~Username: eve",
            "x-verified: eve",
            "X-Forwarded-For: 6.6.6.6",
            "X-Forwarded-Host: 6.6.6.6",
            "X.Forwarded_Prefix: 6.6.6.6",
            "Forwarded: for=6.6.6.6",
            "X-Real-IP: 6.6.6.6",
            "x_real.ip: 6.6.6.6",
            "True-Client-IP: 6.6.6.6",
            "Proxy: http://6.6.6.6",
            "x_forwarded_proto: https",
            "Connection: keep-alive, x-verified-username, x-mine, x-verified-secret",
            "X-Mine: hop-by-hop",
            "X-Kept: yes",
            "TE: trailers",
            "Keep-Alive: 5",
            "Proxy-Connection: keep-alive",
        ]
        assert status(await it.send(get("/t/", *forged))) == 200
        heard = it.heard[0].decode().lower()
        assert "eve" not in heard
        assert "hop-by-hop" not in heard
        assert "6.6.6.6" not in heard
        for line in (
            "x-verified-username: ann",
            'x-verified-user-data: {"n":1}',
            "x-verified-secret: secret",
            "x-verified-backend: b-t",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-kept: yes",
            f"host: {CLUSTER}",
        ):
            assert heard.count(f"\r\n{line}\r\n") == 1, line
        for gone in ("keep-alive", "proxy-connection", "te: ", "connection:"):
            assert gone not in heard


async def test_pipelined_requests_get_their_responses_in_order_each_from_its_backend() -> None:
    async with world() as it:
        it.add_route("u")
        response = await it.send(get("/t/1") + get("/nope/") + get("/u/2") + get("/t/3"))
        assert [part[:3] for part in response.split(b"HTTP/1.1 ")[1:]] == [b"200", b"410", b"200", b"200"]
        assert [head.split(b" ")[1] for head in it.heard] == [b"/1", b"/2", b"/3"]


@pytest.mark.parametrize("pieces", [1, 3, 1000])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_arrives_complete_in_any_pieces(pieces: int, chunked: bool) -> None:
    body = b"5;x=y\r\nhello\r\n0\r\nTrailer: ok\r\n\r\n" if chunked else b"hello"
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 5"
    data = get("/t/", framing, method="POST") + body + get("/t/next")
    async with world() as it:

        async def read_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                it.heard.append(head)
                if head.startswith(b"POST"):
                    it.heard.append(await reader.readexactly(len(body)))
                writer.write(OK)

        it.exchange = read_body
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        size = max(1, len(data) // pieces)
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT_S):
            for _ in range(2):
                await reader.readuntil(b"ok")
        writer.close()
        assert it.heard[1] == body
        assert it.heard[2].startswith(b"GET /next ")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"2\r\nok\r\n0\r\n\r\n"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ncut", b"cut"),
    ],
)
async def test_a_response_of_every_framing_passes(said: bytes, expected: bytes) -> None:
    async with world() as it:
        it.exchange = says(said)
        response = await it.send(get())
        head, _, body = response.rpartition(b"\r\n\r\n") if not expected.endswith(b"\r\n\r\n") else (response, b"", b"")
        if expected.endswith(b"\r\n\r\n"):
            assert response.endswith(expected)
        else:
            assert body == expected
        assert b"x-plane-backend-id: b-t" in head


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Field: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nSet-Cookie: c\r\n\r\n",
    ],
)
async def test_a_malformed_response_is_a_502(said: bytes) -> None:
    async with world() as it:
        it.exchange = says(said)
        assert status(await it.send(get())) == 502


async def test_a_backend_that_is_not_reachable_is_a_502() -> None:
    async with world() as it:
        it.add_route("t", address="127.0.0.1:1")
        assert status(await it.send(get())) == 502


async def test_cors_fields_of_the_backend_are_kept() -> None:
    async with world() as it:
        it.exchange = says(b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://a\r\nContent-Length: 0\r\n\r\n")
        response = await it.send(get())
        assert response.lower().count(b"access-control-") == 1
        assert b"https://a" in response


async def test_a_request_on_a_stale_connection_is_sent_again() -> None:
    async with world() as it:

        async def one_then_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            it.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)
            await writer.drain()
            if it.connections == 1:
                # Closes only when the second request has come: the proxy could not know.
                it.heard.append(await reader.readuntil(b"\r\n\r\n"))

        it.exchange = one_then_close
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        for _ in range(2):
            writer.write(get())
            async with asyncio.timeout(LIMIT_S):
                assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()
        assert (len(it.heard), it.connections) == (3, 2)


async def test_tunnels_keep_early_bytes_and_half_closes() -> None:
    async with world() as it:

        async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            it.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nearly")
            it.heard.append(await reader.read(-1))
            writer.write(b"after the half-close")
            await writer.drain()

        it.exchange = upgrade
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/", "Connection: Upgrade", "Upgrade: raw") + b"sent early")
        async with asyncio.timeout(LIMIT_S):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"Upgrade: raw" in head
            assert await reader.readexactly(5) == b"early"
            writer.write(b" and late")
            writer.write_eof()
            assert await reader.read(-1) == b"after the half-close"
        writer.close()
        assert it.heard[1] == b"sent early and late"
        assert b"\r\nUpgrade: raw\r\n" in it.heard[0]


async def test_requests_share_a_lookup_and_bad_tokens_are_cached_briefly() -> None:
    async with world() as it:
        responses = await asyncio.gather(*(it.send(get("/t/", "Connection: close")) for _ in range(20)))
        assert {status(response) for response in responses} == {200}
        assert it.asked.count("t") == 1
        for _ in range(5):
            assert status(await it.send(get("/early/", "Connection: close"))) == 410
        assert it.asked.count("early") == 1
        it.add_route("early")
        async with asyncio.timeout(LIMIT_S):
            while status(await it.send(get("/early/", "Connection: close"))) != 200:
                await asyncio.sleep(0.2)


async def test_the_token_of_a_removed_backend_and_an_expired_token_are_looked_up_again() -> None:
    async with world() as it:
        it.add_route("t", expires_in_ms=300)
        assert status(await it.send(get("/t/", "Connection: close"))) == 200
        await asyncio.sleep(0.4)
        it.routes["t"] = None
        assert status(await it.send(get("/t/", "Connection: close"))) == 410
        it.add_route("u")
        assert status(await it.send(get("/u/", "Connection: close"))) == 200
        it.routes["u"] = None
        assert it.controller is not None
        await it.controller.send_str(json.dumps({"BackendRemoved": {"backend": "b-u"}}))
        await asyncio.sleep(0.1)
        assert status(await it.send(get("/u/", "Connection: close"))) == 410


async def test_a_keepalive_is_sent_when_use_begins_and_when_it_ends() -> None:
    async with world() as it:
        assert status(await it.send(get("/t/", "Connection: close"))) == 200
        async with asyncio.timeout(LIMIT_S):
            while len(it.kept_alive) < 2:
                await asyncio.sleep(0.05)
        assert set(it.kept_alive) == {"b-t"}
        told = len(it.kept_alive)
        await asyncio.sleep(1.5)
        assert len(it.kept_alive) == told


async def test_backpressure_reaches_the_backend() -> None:
    size = 64 * 1024 * 1024
    sent = 0
    async with world() as it:

        async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
            while sent < size:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536

        it.exchange = pour
        _, writer = await asyncio.open_connection("127.0.0.1", it.port, limit=1024)
        writer.write(get())
        before = -1
        async with asyncio.timeout(LIMIT_S):
            while sent != before:
                before = sent
                await asyncio.sleep(0.3)
        # What the kernel's buffers hold, and no more.
        assert 0 < sent < size // 2
        writer.close()
