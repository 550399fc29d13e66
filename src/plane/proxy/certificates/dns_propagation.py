"""Waits until a TXT value is seen by whoever asks the zone's own name servers, before a CA is told to look.

Where these cannot be found or asked (a firewall, a test without delegation), the wait is a short fixed time: the CA
decides.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver
import structlog

from plane.timing import TXT_FIXED_WAIT_S, TXT_POLL_INTERVAL_S, TXT_QUERY_TIMEOUT_S, TXT_VISIBLE_TIMEOUT_S

__all__ = ["system_resolver", "until_visible"]

DNS_PORT = 53
CHALLENGE_LABEL = "_acme-challenge"
# Names on the way from the challenge to the zone that answers it.
CNAMES_LIMIT = 8

log = structlog.get_logger("plane.proxy")


class _NotFound(Exception):
    """The zone's name servers have no addresses."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """Where to ask: any of the addresses will do, since this machine may not reach all (IPv6)."""

    addresses: tuple[str, ...]
    port: int


async def until_visible(cluster_host: str, value: str, asked: tuple[str, int] | None) -> None:
    """Return when the challenge of ``cluster_host`` is answered with ``value``, or after a limit.

    ``asked``: address and port of the only server to ask; None: those of the zone, as the system's resolver finds them.
    """
    name = dns.name.from_text(f"{CHALLENGE_LABEL}.{cluster_host}")
    try:
        async with asyncio.timeout(TXT_VISIBLE_TIMEOUT_S):
            if asked is not None:
                servers = [NameServer((asked[0],), asked[1])]
            else:
                name, servers = await _responsible(name)
            await _until_all_have(servers, name, value)
    except TimeoutError:
        log.warning("challenge's value not seen in time; the CA may see it", name=str(name))
    except (dns.exception.DNSException, _NotFound) as error:
        log.info("zone's name servers not found; waiting instead", name=str(name), error=str(error))
        await asyncio.sleep(TXT_FIXED_WAIT_S)


def system_resolver() -> dns.asyncresolver.Resolver:
    """What this machine is set up to ask."""
    resolver = dns.asyncresolver.Resolver()
    # An answer that is not there yet would be remembered.
    resolver.cache = None
    return resolver


async def _responsible(name: dns.name.Name) -> tuple[dns.name.Name, list[NameServer]]:
    """The name at the end of the challenge's CNAMEs, and the servers of its zone.

    Raises:
        dns.exception.DNSException, _NotFound: they cannot be found.
    """
    resolver = system_resolver()
    for _ in range(CNAMES_LIMIT):
        try:
            alias = await resolver.resolve(name, dns.rdatatype.CNAME)
        except (dns.resolver.NoAnswer, dns.resolver.NXDOMAIN):
            break
        name = alias[0].target
    zone = await dns.asyncresolver.zone_for_name(name, resolver=resolver)
    loop = asyncio.get_running_loop()
    servers = []
    for record in await resolver.resolve(zone, dns.rdatatype.NS):
        try:
            found = await loop.getaddrinfo(record.target.to_text(omit_final_dot=True), DNS_PORT, type=socket.SOCK_DGRAM)
        except OSError:
            continue
        servers.append(NameServer(tuple(dict.fromkeys(str(address[0]) for *_, address in found)), DNS_PORT))
    if not servers:
        raise _NotFound(f"no server of the zone {zone} has an address")
    return name, servers


async def _until_all_have(servers: list[NameServer], name: dns.name.Name, value: str) -> None:
    """A CA asks any of them, so each must have it; one that never answers is left to the caller's limit."""
    waiting = list(servers)
    while waiting:
        has = await asyncio.gather(*(_has(server, name, value) for server in waiting))
        waiting = [server for server, seen in zip(waiting, has, strict=True) if not seen]
        if waiting:
            await asyncio.sleep(TXT_POLL_INTERVAL_S)


async def _has(server: NameServer, name: dns.name.Name, value: str) -> bool:
    return any(await asyncio.gather(*(_answers(each, server.port, name, value) for each in server.addresses)))


async def _answers(address: str, port: int, name: dns.name.Name, value: str) -> bool:
    query = dns.message.make_query(name, dns.rdatatype.TXT)
    try:
        response = await dns.asyncquery.udp(query, address, timeout=TXT_QUERY_TIMEOUT_S, port=port)
    except (dns.exception.DNSException, OSError):
        return False
    texts = {b"".join(each.strings) for found in response.answer for each in found if hasattr(each, "strings")}
    return value.encode() in texts
