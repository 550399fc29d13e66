"""Time, and how much: slow bodies and readers, idle connections, open files, the end of a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket

import pytest

from harness.proxy_world import LIMIT_S, OK, World, get, status, world
from plane.settings import ProxyLimits

SHORT = ProxyLimits(body_s=0.3)


async def read_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def test_a_request_body_that_stalls_is_a_408() -> None:
    async with world(limits=SHORT) as it:
        it.exchange = read_all
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/", "Content-Length: 5", method="POST") + b"he")
        async with asyncio.timeout(LIMIT_S):
            assert status(await reader.read(-1)) == 408
        writer.close()


async def test_a_slow_request_body_does_not_time_out() -> None:
    async with world(limits=ProxyLimits(body_s=1.2)) as it:

        async def body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            it.heard.append(await reader.readexactly(8))
            writer.write(OK)

        it.exchange = body
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/", "Content-Length: 8", method="POST"))
        for _ in range(8):
            await asyncio.sleep(0.4)
            writer.write(b"x")
        async with asyncio.timeout(LIMIT_S):
            assert status(await reader.readuntil(b"ok")) == 200
        writer.close()


async def test_a_backend_that_stops_reading_is_a_504() -> None:
    async with world(limits=SHORT) as it:
        stuck = asyncio.Event()

        async def read_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await stuck.wait()

        it.exchange = read_nothing
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/", "Content-Length: 50000000", method="POST"))

        async def pour() -> None:
            for _ in range(500):
                writer.write(b"x" * 100_000)
                await writer.drain()

        pouring = asyncio.create_task(pour())
        async with asyncio.timeout(30):
            assert status(await reader.readuntil(b"\r\n\r\n")) == 504
        pouring.cancel()
        await asyncio.wait([pouring])
        writer.transport.abort()
        stuck.set()


async def slow_reader(it: World) -> socket.socket:
    reading = socket.socket()
    reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reading.setblocking(False)
    await asyncio.get_running_loop().sock_connect(reading, ("127.0.0.1", it.port))
    return reading


async def test_a_client_that_stops_reading_is_cut_and_a_slow_one_is_not() -> None:
    size = 20_000_000
    async with world(limits=ProxyLimits(body_s=1.0)) as it:

        async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            try:
                await writer.drain()
            except ConnectionError:
                ended.set()
            await reader.read(-1)
            ended.set()

        it.exchange = pour
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        slow = await slow_reader(it)
        await loop.sock_sendall(slow, get())
        # Much slower than the kernel's buffers empty, for several times the limit.
        for _ in range(12):
            await asyncio.sleep(0.4)
            assert await loop.sock_recv(slow, 65536)
            assert not ended.is_set()
        # And now it stops.
        async with asyncio.timeout(LIMIT_S):
            await ended.wait()
        slow.close()


async def test_a_silent_response_does_not_time_out() -> None:
    async with world(limits=ProxyLimits(body_s=0.2, idle_s=0.2, head_s=0.2)) as it:

        async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(2.5)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            await asyncio.sleep(2.5)
            writer.write(b"k")

        it.exchange = later
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get())
        async with asyncio.timeout(LIMIT_S):
            assert status(await reader.readuntil(b"\r\n\r\nok")) == 200
            # But an idle connection ends.
            assert await reader.read(-1) == b""
        writer.close()


async def test_the_limit_of_open_files_refuses_new_connections_and_keeps_the_old(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with world() as it:
        it.service.fd_budget.limit = 5
        kept = []
        async with asyncio.timeout(LIMIT_S):
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
                writer.write(get())
                await reader.readuntil(b"\r\n\r\nok")
                kept.append((reader, writer))
            refused = 0
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
                writer.write(get())
                try:
                    refused += await reader.read(1) == b""
                except ConnectionError:
                    refused += 1
                writer.close()
            assert refused == 5
            for reader, writer in kept:
                writer.write(get())
                assert status(await reader.readuntil(b"\r\n\r\nok")) == 200
                writer.close()
    assert "at the limit of open files" in "".join(capfd.readouterr())


async def test_ten_thousand_idle_connections_do_not_affect_requests() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Both ends are in this process.
    count = min(10_000, (hard - 500) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with world() as it:
        loop = asyncio.get_running_loop()
        idle = []
        try:
            for _ in range(count):
                one = socket.socket()
                one.setblocking(False)
                idle.append(one)
                await loop.sock_connect(one, ("127.0.0.1", it.port))
            async with asyncio.timeout(30):
                while len(it.service.connections) < count:
                    await asyncio.sleep(0.05)
                for _ in range(10):
                    assert status(await it.send(get("/t/", "Connection: close"))) == 200
        finally:
            for one in idle:
                one.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert count > 1_000


async def test_a_stop_lets_responses_finish_and_accepts_no_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plane.timing.PROXY_SHUTDOWN_GRACE_S", 5.0)
    async with world() as it:
        go_on = asyncio.Event()

        async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            it.heard.append(b"asked")
            await go_on.wait()
            writer.write(OK)
            await writer.drain()

        it.exchange = wait
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        idle_reader, idle = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get())
        async with asyncio.timeout(LIMIT_S):
            while not it.heard:
                await asyncio.sleep(0.01)
            it.stop.set()
            # An idle connection ends at once.
            assert await idle_reader.read(-1) == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", it.port)
            go_on.set()
            response = await reader.read(-1)
        assert status(response) == 200
        assert b"\r\nConnection: close\r\n" in response
        for one in (writer, idle):
            one.close()


async def test_tunnels_get_a_grace_period_and_then_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plane.timing.PROXY_SHUTDOWN_GRACE_S", 0.5)
    async with world() as it:
        it.exchange = it.switch_and_echo
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/t/", "Connection: Upgrade", "Upgrade: raw"))
        async with asyncio.timeout(LIMIT_S):
            await reader.readuntil(b"\r\n\r\n")
            it.stop.set()
            await asyncio.sleep(0.1)
            writer.write(b"still")
            assert await reader.readexactly(5) == b"still"
            with contextlib.suppress(ConnectionError):
                assert await reader.read(-1) == b""
        writer.close()


async def test_a_half_closed_client_gets_all_responses() -> None:
    async with world(limits=ProxyLimits(half_closed_s=LIMIT_S)) as it:

        async def bodies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                it.heard.append(await reader.readexactly(5))
                writer.write(OK)

        it.exchange = bodies
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write((get("/t/", "Content-Length: 5", method="POST") + b"hello") * 3 + b"GET /t/ HT")
        writer.write_eof()
        async with asyncio.timeout(LIMIT_S):
            response = await reader.read(-1)
        writer.close()
        assert response.count(b"HTTP/1.1 200 OK") == 3
        assert it.heard == [b"hello"] * 3


@pytest.mark.parametrize("target", ["/gone/", "/t/"])
async def test_an_early_response_reaches_a_client_that_is_still_sending(target: str) -> None:
    async with world() as it:

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await writer.drain()
            await reader.read(-1)

        it.exchange = refuse
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", it.port))
            await loop.sock_sendall(client, get(target, "Content-Length: 20000000", method="POST"))
            # Nothing is read before much was sent: a reset would have discarded the response.
            async with asyncio.timeout(LIMIT_S):
                for _ in range(100):
                    await loop.sock_sendall(client, bytes(20_000))
                    await asyncio.sleep(0.005)
                response = b""
                while data := await loop.sock_recv(client, 65536):
                    response += data
        assert status(response) == (413 if target == "/t/" else 410)
        assert b"\r\nConnection: close\r\n" in response


async def test_a_client_that_keeps_sending_after_its_response_is_cut() -> None:
    async with world(limits=ProxyLimits(linger_s=0.3)) as it:
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(get("/gone/", "Content-Length: 20000000", method="POST"))

        async def send_for_ever() -> None:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_for_ever(), LIMIT_S)
        writer.close()
