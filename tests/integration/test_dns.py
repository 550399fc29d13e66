"""The DNS server on real sockets, with a real controller behind it, asked by dig and by dnspython."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from harness import real_parts
from harness.controllers import Api, controller_api
from harness.fake_node import FakeNode, fake_proxy
from plane.decisions.rate_limiter import BURST, RATE_PER_S
from plane.dns.server import start_dns
from plane.protocol.names import NodeName
from plane.settings import DnsSettings
from plane.timing import TXT_CACHE_TTL_S
from plane.transport.controller_url import ControllerUrl

ZONE = "acme.example"
CLUSTER = "plane.example"
LIMIT_S = 10.0


@asynccontextmanager
async def serving(base: str, *hosts: str, zone: str | None = ZONE) -> AsyncIterator[int]:
    settings = DnsSettings(
        controller_url=ControllerUrl.parse(base),
        name=NodeName("ns-test"),
        zone=zone,
        hosts=hosts or ("127.0.0.1",),
        port=0,
    )
    async with start_dns(settings) as server:
        yield server.port


@asynccontextmanager
async def values_set(api: Api, *values: str) -> AsyncIterator[FakeNode]:
    async with fake_proxy(api.base, "px-test", cluster=CLUSTER) as proxy:
        await proxy.send("CertManagerRequest", "CertLeaseRequest")
        assert (await proxy.receive("CertManagerResponse"))["CertLeaseResponse"]["accepted"]
        for value in values:
            await proxy.send("CertManagerRequest", {"SetTxtRecord": {"txt_value": value}})
            await proxy.receive("CertManagerResponse")
        yield proxy


async def ask(
    port: int, name: str, kind: str = "TXT", *, tcp: bool = False, host: str = "127.0.0.1"
) -> dns.message.Message:
    how = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await how(dns.message.make_query(name, kind), host, port=port, timeout=LIMIT_S)


def texts(response: dns.message.Message) -> set[str]:
    return {text.decode() for record in response.answer for each in record for text in each.strings}


async def until_connected(port: int) -> None:
    """Until then it is SERVFAIL; asked for a name of its own, since each answer is remembered for a second."""
    async with asyncio.timeout(LIMIT_S):
        number = 0
        while (await ask(port, f"wait{number}.{ZONE}", tcp=True)).rcode() != dns.rcode.NOERROR:
            number += 1
            await asyncio.sleep(0.05)


async def dig(port: int, *arguments: str) -> str:
    program = shutil.which("dig")
    if program is None:
        real_parts.missing("dig (Debian's bind9-dnsutils)")
    assert program is not None
    done = await asyncio.create_subprocess_exec(
        program, "-p", str(port), "@127.0.0.1", "+tries=1", "+time=5", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await done.communicate()
    return out.decode()


async def test_dig_finds_the_values_of_apex_and_wildcard(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, serving(api.base) as port, values_set(api, "one", "two"):
        await until_connected(port)
        for transport in ("+notcp", "+tcp"):
            short = await dig(port, "TXT", f"{CLUSTER}.{ZONE}", "+short", transport)
            assert set(short.split()) == {'"one"', '"two"'}
        whole = await dig(port, "TXT", f"PLANE.example.{ZONE}")
        assert "status: NOERROR" in whole
        assert " aa " in whole.replace(";", " ;")
        assert re.search(r"\s1\s+IN\s+TXT\s", whole)
        no_data = await dig(port, "A", f"{CLUSTER}.{ZONE}")
        assert "status: NOERROR" in no_data
        assert "ANSWER: 0, AUTHORITY: 1" in no_data
        assert re.search(rf"^{ZONE}\.\s+1\s+IN\s+SOA\s", no_data, re.MULTILINE)
        assert "status: FORMERR" in await dig(port, "TXT", "elsewhere.example")
        assert f"{ZONE}. hostmaster.{ZONE}. 1" in await dig(port, "SOA", ZONE)
        assert f"{ZONE}." in await dig(port, "NS", ZONE, "+short")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_families_and_both_transports(host: str, postgres_url: str) -> None:
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    async with controller_api(postgres_url) as api, serving(api.base, host) as port, values_set(api, "v"):
        async with asyncio.timeout(LIMIT_S):
            while texts(await ask(port, f"{CLUSTER}.{ZONE}", tcp=True, host=host)) != {"v"}:
                await asyncio.sleep(0.05)
        assert texts(await ask(port, f"{CLUSTER}.{ZONE}", host=host)) == {"v"}


async def test_a_new_value_is_seen_within_a_second_and_a_released_one_is_gone(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, serving(api.base) as port, values_set(api, "old") as proxy:
        await until_connected(port)
        assert texts(await ask(port, f"{CLUSTER}.{ZONE}")) == {"old"}
        await proxy.send("CertManagerRequest", {"SetTxtRecord": {"txt_value": "new"}})
        await proxy.receive("CertManagerResponse")
        async with asyncio.timeout(LIMIT_S):
            while texts(await ask(port, f"{CLUSTER}.{ZONE}")) != {"old", "new"}:
                await asyncio.sleep(0.05)
        await proxy.send("CertManagerRequest", "ReleaseCertLease")
        async with asyncio.timeout(LIMIT_S):
            while (await ask(port, f"{CLUSTER}.{ZONE}")).answer:
                await asyncio.sleep(0.05)


async def test_without_a_controller_it_fails_at_once_and_recovers(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api:
        base = api.base
        async with serving(base) as port, values_set(api, "v"):
            await until_connected(port)
            assert texts(await ask(port, f"{CLUSTER}.{ZONE}")) == {"v"}
    async with serving(base) as port:
        assert (await ask(port, f"{CLUSTER}.{ZONE}")).rcode() == dns.rcode.SERVFAIL
        async with controller_api(postgres_url, port=int(base.rpartition(":")[2])):
            async with asyncio.timeout(LIMIT_S):
                while texts(await ask(port, f"{CLUSTER}.{ZONE}", tcp=True)) != {"v"}:
                    await asyncio.sleep(0.05)


async def test_a_controller_that_says_nothing_is_waited_for_five_seconds_at_most() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    controller = await asyncio.start_server(silent, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{controller.sockets[0].getsockname()[1]}"
    async with controller, serving(base) as port:
        assert (await ask(port, f"{CLUSTER}.{ZONE}")).rcode() == dns.rcode.SERVFAIL


async def test_a_flood_of_names_is_answered_no_more_than_the_rate_and_known_names_still_are(postgres_url: str) -> None:
    loop = asyncio.get_running_loop()
    async with controller_api(postgres_url) as api, serving(api.base) as port, values_set(api, "v"):
        await until_connected(port)
        assert texts(await ask(port, f"{CLUSTER}.{ZONE}")) == {"v"}
        began = loop.time()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            flood.setblocking(False)
            flood.connect(("127.0.0.1", port))

            async def send(numbers: range) -> None:
                for number in numbers:
                    await loop.sock_sendall(flood, dns.message.make_query(f"x{number}.{ZONE}", "TXT").to_wire())
                assert texts(await ask(port, f"{CLUSTER}.{ZONE}")) == {"v"}

            for number in range(0, 2000, 100):
                await send(range(number, number + 100))
            # The value is no longer cached, and the flood continues.
            await asyncio.sleep(TXT_CACHE_TTL_S)
            await send(range(2000, 2100))
            heard = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while await loop.sock_recv(flood, 512):
                        heard += 1
        assert 0 < heard <= BURST + RATE_PER_S * (loop.time() - began)


async def test_malformed_packets_do_no_harm(postgres_url: str) -> None:
    async with controller_api(postgres_url) as api, serving(api.base) as port, values_set(api, "v"):
        await until_connected(port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for junk in (b"", b"\0", b"\xff" * 11, b"\0" * 12, b"\xff" * 512, b"\0\0\x01\0\0\x01" + b"\xc0" * 60):
                sender.sendto(junk, ("127.0.0.1", port))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0\x03abc\0\0\0\x0c" + b"\xff" * 12 + b"\xff\xff")
        query = dns.message.make_query(f"{CLUSTER}.{ZONE}", "TXT").to_wire()
        other_reader, other = await asyncio.open_connection("127.0.0.1", port)
        other.write(len(query).to_bytes(2) + query[:5])
        await asyncio.sleep(0.05)
        # Two queries at once, after one in pieces.
        other.write(query[5:] + (len(query).to_bytes(2) + query) * 2)
        for _ in range(3):
            length = int.from_bytes(await other_reader.readexactly(2))
            assert texts(dns.message.from_wire(await other_reader.readexactly(length))) == {"v"}
        for each in (writer, other):
            each.close()
            await each.wait_closed()
        assert texts(await ask(port, f"{CLUSTER}.{ZONE}")) == {"v"}
