"""What is said of requests that fail; the sockets, certificates and errors are real."""

from __future__ import annotations

import asyncio
import socket
import ssl

import aiohttp
import pytest
import trustme

from plane.transport.request_errors import request_error_reason


async def failure(url: str, context: ssl.SSLContext | None = None) -> str:
    with pytest.raises((aiohttp.ClientError, OSError)) as caught:
        async with aiohttp.ClientSession() as http:
            await http.get(url, ssl=context or True)
    return request_error_reason(caught.value)


@pytest.mark.parametrize("trusted", [False, True])
async def test_a_certificate_that_is_not_accepted_has_its_reason(trusted: bool) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("controller.test").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        reason = await failure(
            f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", trusting if trusted else None
        )
    assert reason.startswith("its certificate is not accepted: ")
    assert ("not valid for '127.0.0.1'" if trusted else "unable to get local issuer") in reason


async def test_a_port_that_serves_plain_http_is_said_to() -> None:
    def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        reason = await failure(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert reason.startswith("no TLS connection: ")
    assert reason.endswith("; the port may serve plain HTTP")


async def test_the_address_is_not_repeated() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert await failure(f"http://127.0.0.1:{port}/") == "connection refused"
    lookup = await failure("http://controller.invalid/")
    assert lookup
    assert "controller.invalid" not in lookup
