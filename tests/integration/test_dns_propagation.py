"""Waiting for a TXT value: on one name server that is named, and on those of the zone, through a CNAME."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.asyncresolver
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from plane.proxy.certificates import dns_propagation
from plane.proxy.certificates.dns_propagation import until_visible

LIMIT_S = 15.0
CHALLENGE = "_acme-challenge.plane.test."


class NameServer(asyncio.DatagramProtocol):
    """Answers from a table of (name, type) to texts; what is not there has no answer."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((str(question.name), kind))
        response = dns.message.make_response(query)
        for text in self.records.get((str(question.name), kind), []):
            response.answer.append(dns.rrset.from_text(question.name, 1, "IN", kind, text))
        self.transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()


def asking(server: NameServer) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.port
    return resolver


async def test_the_named_server_is_asked_until_it_has_the_value() -> None:
    async with name_server() as server, asyncio.timeout(LIMIT_S):
        waiting = asyncio.create_task(until_visible("plane.test", "v", ("127.0.0.1", server.port)))
        server.records[CHALLENGE, "TXT"] = ["old"]
        while len(server.asked) < 2:
            await asyncio.sleep(0.02)
        assert not waiting.done()
        server.records[CHALLENGE, "TXT"] = ["old", "v"]
        await waiting


async def test_the_zone_s_own_servers_are_found_through_the_cname(monkeypatch: pytest.MonkeyPatch) -> None:
    target = "plane.test.acme.test."
    async with name_server() as server:
        server.records = {
            (CHALLENGE, "CNAME"): [target],
            ("acme.test.", "SOA"): ["acme.test. admin.acme.test. 1 1 1 1 1"],
            ("acme.test.", "NS"): ["localhost."],
            (target, "TXT"): ["v"],
        }
        monkeypatch.setattr(dns_propagation, "DNS_PORT", server.port)
        monkeypatch.setattr(dns_propagation, "system_resolver", lambda: asking(server))
        async with asyncio.timeout(LIMIT_S):
            await until_visible("plane.test", "v", None)
        assert server.asked[-1] == (target, "TXT")


async def test_a_value_that_does_not_come_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_propagation, "TXT_VISIBLE_TIMEOUT_S", 0.3)
    async with name_server() as server, asyncio.timeout(LIMIT_S):
        await until_visible("plane.test", "v", ("127.0.0.1", server.port))
    assert server.asked


async def test_where_no_server_is_found_a_fixed_time_is_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_propagation, "TXT_FIXED_WAIT_S", 0.01)
    async with name_server() as server:
        monkeypatch.setattr(dns_propagation, "system_resolver", lambda: asking(server))
        async with asyncio.timeout(LIMIT_S):
            await until_visible("plane.test", "v", None)
    assert ("plane.test.", "SOA") in server.asked or (CHALLENGE, "SOA") in server.asked
