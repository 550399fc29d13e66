"""Behind a load balancer: what trusted proxies say of their clients reaches the backend, what others say does not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest

from harness.certificates import Authority
from harness.proxy_world import CLUSTER, LIMIT_S, World, get, status, world
from plane.decisions.http.trusted_proxies import parse_networks
from plane.settings import ProxyLimits

# The load balancer connects from there, and everybody else from 127.0.0.1.
BALANCER = ("127.0.0.2", 0)
TRUSTED = parse_networks(["127.0.0.2", "127.0.0.8/29"])
ELSEWHERE = parse_networks(["10.0.0.0/8"])
CLAIMS = ("X-Forwarded-For: 6.6.6.6, 203.0.113.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: app.example.com")

V1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 51234 443\r\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = socket.inet_aton("203.0.113.7") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 51234, 443)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + struct.pack("!HH", 51234, 443)
SSL_EXTENSION = struct.pack("!BH", 0x20, 5) + b"\x01\0\0\0\0"


def v2(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(rest)) + rest


LOCAL = v2(0x20, 0x00, b"")


def told(it: World, number: int = -1) -> dict[str, str]:
    """Return the fields about the client that a backend got, by the end of their names. Each occurs once."""
    lines = [line for line in it.heard[number].decode().split("\r\n") if line.lower().startswith("x-forwarded-")]
    # That one tells of the path.
    lines = [line for line in lines if not line.startswith("x-forwarded-prefix: /t")]
    fields = dict(line.removeprefix("x-forwarded-").split(": ", 1) for line in lines)
    assert len(fields) == len(lines)
    return fields


async def exchange(it: World, data: bytes) -> bytes:
    """Send, and read one response, or nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port, local_addr=BALANCER)
    try:
        writer.write(data)
        async with asyncio.timeout(LIMIT_S):
            return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    finally:
        writer.close()


async def test_a_trusted_proxy_names_the_client_and_its_own_address_is_added() -> None:
    async with world(trusted_proxies=TRUSTED) as it:
        assert status(await exchange(it, get("/t/", *CLAIMS))) == 200
        assert told(it) == {"for": "203.0.113.7, 127.0.0.2", "proto": "https", "host": "app.example.com"}


async def test_the_fields_of_an_untrusted_peer_are_ignored() -> None:
    async with world(trusted_proxies=ELSEWHERE) as it:
        assert status(await exchange(it, get("/t/", *CLAIMS))) == 200
        assert told(it) == {"for": "127.0.0.2", "proto": "http"}


async def test_requests_of_one_connection_may_be_of_different_clients() -> None:
    async with world(trusted_proxies=TRUSTED) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port, local_addr=BALANCER)
        expected = []
        async with asyncio.timeout(LIMIT_S):
            for number, scheme in enumerate(("https", "http", "https")):
                writer.write(get("/t/", f"X-Forwarded-For: 203.0.113.{number}", f"X-Forwarded-Proto: {scheme}"))
                expected.append({"for": f"203.0.113.{number}, 127.0.0.2", "proto": scheme})
                await reader.readuntil(b"ok")
            # One that says nothing is the load balancer's own.
            writer.write(get())
            await reader.readuntil(b"ok")
        writer.close()
        assert [told(it, number) for number in range(4)] == [*expected, {"for": "127.0.0.2", "proto": "http"}]


async def test_an_untrusted_client_cannot_claim_another_host() -> None:
    # Heads are cached, also if a trusted peer sent them first.
    request = get("/t/", *CLAIMS)
    async with world(trusted_proxies=TRUSTED, proxy_protocol=True) as it:
        assert status(await exchange(it, v2(0x21, 0x11, socket.inet_aton("127.0.0.9") * 2 + bytes(4)) + request)) == 200
        assert told(it)["for"] == "203.0.113.7, 127.0.0.9"
        assert status(await exchange(it, V1 + request)) == 200
        assert told(it) == {"for": "203.0.113.7", "proto": "http"}


@pytest.mark.parametrize(
    ("host", "claimed", "expected"),
    [
        ("internal.example", CLUSTER, 200),
        ("internal.example", f"x.{CLUSTER}", 403),
        ("internal.example", "elsewhere.example", 403),
        (f"x.{CLUSTER}", CLUSTER, 403),
    ],
)
async def test_a_load_balancer_may_put_another_name_into_host(host: str, claimed: str, expected: int) -> None:
    request = get("/t/", f"X-Forwarded-Host: {claimed}", host=host)
    async with world(trusted_proxies=TRUSTED) as it:
        assert status(await exchange(it, request)) == expected
        if expected == 200:
            # `Host` stays as it came.
            assert b"\r\nHost: internal.example\r\n" in it.heard[0]
    async with world(trusted_proxies=ELSEWHERE) as it:
        assert status(await exchange(it, request)) == 403


async def test_a_request_that_came_to_the_load_balancer_by_tls_is_not_redirected(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair(authority.issue())
    async with world(trusted_proxies=TRUSTED, https_port=0, tls_pair=pair) as it:
        assert status(await exchange(it, get())) == 301
        assert status(await exchange(it, get("/t/", "X-Forwarded-Proto: https"))) == 200
        assert told(it)["proto"] == "https"
        assert status(await exchange(it, get("/t/", "X-Forwarded-Proto: http"))) == 301
    async with world(trusted_proxies=ELSEWHERE, https_port=0, tls_pair=pair) as it:
        assert status(await exchange(it, get("/t/", "X-Forwarded-Proto: https"))) == 301


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (V1, {"for": "203.0.113.7", "proto": "http"}),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", {"for": "2001:db8::7", "proto": "http"}),
        (b"PROXY UNKNOWN\r\n", {"for": "127.0.0.2", "proto": "http"}),
        (v2(0x21, 0x11, V4), {"for": "203.0.113.7", "proto": "http"}),
        (v2(0x21, 0x21, V6), {"for": "2001:db8::7", "proto": "http"}),
        (v2(0x21, 0x11, V4 + SSL_EXTENSION), {"for": "203.0.113.7", "proto": "https"}),
        (LOCAL, {"for": "127.0.0.2", "proto": "http"}),
    ],
)
@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "byte by byte"])
async def test_a_proxy_header_names_the_client(header: bytes, expected: dict[str, str], *, pieces: bool) -> None:
    async with world(trusted_proxies=TRUSTED, proxy_protocol=True) as it:
        # Nobody is believed by its own word: what the load balancer passes on is a stranger's.
        data = header + get("/t/", *CLAIMS)
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port, local_addr=BALANCER)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), 1 if pieces else len(data)):
            writer.write(data[start : start + 1] if pieces else data)
            await asyncio.sleep(0.0005 if pieces else 0)
        async with asyncio.timeout(LIMIT_S):
            assert status(await reader.readuntil(b"ok")) == 200
            # And the next request of the connection.
            writer.write(get())
            await reader.readuntil(b"ok")
        writer.close()
        assert told(it, 0) == told(it, 1) == expected


@pytest.mark.parametrize(
    "data", [get(), b"PROXY TCP4 nonsense\r\n" + get(), SIGNATURE + b"\xff\xff\0\0" + get(), b"PROXY ", b""]
)
async def test_a_trusted_proxy_without_a_header_gets_no_response(
    data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    limits = ProxyLimits(head_s=0.3)
    async with world(trusted_proxies=TRUSTED, proxy_protocol=True, limits=limits) as it:
        # Closed at once or, if more might come, when its time is over.
        assert await exchange(it, data) == b""
        assert it.heard == []
        async with asyncio.timeout(LIMIT_S):
            while len(it.service.handshakes):
                await asyncio.sleep(0.01)
    warned = "without PROXY header" in "".join(capfd.readouterr())
    assert warned is (len(data) > 10)


async def test_a_client_that_is_not_trusted_needs_no_header_and_cannot_send_one() -> None:
    async with world(trusted_proxies=ELSEWHERE, proxy_protocol=True) as it:
        assert status(await exchange(it, get("/t/", *CLAIMS))) == 200
        assert told(it) == {"for": "127.0.0.2", "proto": "http"}
        for header in (V1, v2(0x21, 0x11, V4)):
            assert status(await exchange(it, header + get())) == 400
        assert len(it.heard) == 1


async def test_a_silent_load_balancer_does_not_delay_others() -> None:
    async with world(trusted_proxies=TRUSTED, proxy_protocol=True) as it, contextlib.AsyncExitStack() as stack:
        for _ in range(50):
            _, silent = await asyncio.open_connection("127.0.0.1", it.port, local_addr=BALANCER)
            stack.callback(silent.close)
        assert status(await exchange(it, V1 + get())) == 200


async def connect_through(it: World, header: bytes, context: ssl.SSLContext) -> tuple[Any, Any]:
    """Send a header in clear to the TLS port, then shake hands."""
    loop = asyncio.get_running_loop()
    connection = socket.socket()
    connection.setblocking(False)
    connection.bind(BALANCER)
    await loop.sock_connect(connection, ("127.0.0.1", it.https_port))
    await loop.sock_sendall(connection, header)
    return await asyncio.open_connection(sock=connection, ssl=context, server_hostname="localhost")


@pytest.mark.parametrize("header", [V1, v2(0x21, 0x11, V4)], ids=["v1", "v2"])
async def test_the_header_comes_before_tls(header: bytes, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.pair(authority.issue())
    async with world(trusted_proxies=TRUSTED, proxy_protocol=True, https_port=0, tls_pair=pair) as it:
        reader, writer = await connect_through(it, header, authority.client())
        writer.write(get("/t/", *CLAIMS))
        async with asyncio.timeout(LIMIT_S):
            assert status(await reader.readuntil(b"ok")) == 200
        writer.close()
        assert told(it) == {"for": "203.0.113.7", "proto": "https"}
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await connect_through(it, b"", authority.client())


async def test_a_token_in_a_cookie_follows_the_scheme_and_host_of_the_browser() -> None:
    token, host = "L" * 43, f"sub.{CLUSTER}"
    https = (f"X-Forwarded-Host: {host}", "X-Forwarded-Proto: https")
    secure = f"__Host-plane-token={token}"
    async with world(trusted_proxies=TRUSTED) as it:
        it.add_route(token, subdomain="sub", token_in_cookie=True)
        response = await exchange(it, get(f"/{token}/lab", *https, host="internal.example"))
        assert status(response) == 302
        assert f"\r\nSet-Cookie: {secure}; Path=/; HttpOnly; SameSite=Lax; Secure\r\n".encode() in response
        visit = (f"Cookie: {secure}", f"Origin: https://{host}")
        assert status(await exchange(it, get("/lab", *https, *visit, host="internal.example", method="POST"))) == 200
        # The page of another session, and a client that is not a browser.
        other = (f"Cookie: {secure}", f"Origin: https://evil.{CLUSTER}")
        assert status(await exchange(it, get("/lab", *https, *other, host="internal.example", method="POST"))) == 403
        assert status(await it.send(get("/lab", *https, *visit, host=host, method="POST"))) == 410
