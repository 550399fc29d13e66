"""Waits until the zone's own name servers respond with a TXT value, before the CA validates it.

Where the servers cannot be found or reached (a firewall, a test without delegation), it waits for a short fixed time.
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

from plane.protocol.errors import PlaneError
from plane.timing import TXT_FIXED_WAIT_S, TXT_POLL_INTERVAL_S, TXT_QUERY_TIMEOUT_S, TXT_VISIBLE_TIMEOUT_S

__all__ = ["system_resolver", "until_visible"]

DNS_PORT = 53
CHALLENGE_LABEL = "_acme-challenge"
# The longest chain of CNAMEs from the challenge to the zone that has it.
CNAMES_LIMIT = 8

log = structlog.get_logger("plane.proxy")


class _NotFound(PlaneError):
    """The zone's name servers have no addresses."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """One server. Any of its addresses is enough, since this machine may not reach all of them (IPv6)."""

    addresses: tuple[str, ...]
    port: int


async def until_visible(cluster_host: str, value: str, server: tuple[str, int] | None) -> None:
    """Return when the challenge of ``cluster_host`` has the value ``value``, or after a timeout.

    ``server``: address and port of the only server to query. None: those of the zone, found by the system's resolver.
    """
    name = dns.name.from_text(f"{CHALLENGE_LABEL}.{cluster_host}")
    try:
        async with asyncio.timeout(TXT_VISIBLE_TIMEOUT_S):
            if server is not None:
                servers = [NameServer((server[0],), server[1])]
            else:
                name, servers = await _zone_servers(name)
            await _wait_for_all(servers, name, value)
    except TimeoutError:
        log.warning("challenge value not visible in time; continuing with the validation", name=str(name))
    except (dns.exception.DNSException, _NotFound) as error:
        log.info("name servers of the zone not found; waiting instead", name=str(name), error=str(error))
        await asyncio.sleep(TXT_FIXED_WAIT_S)


def system_resolver() -> dns.asyncresolver.Resolver:
    """Return a resolver with the configuration of this machine."""
    resolver = dns.asyncresolver.Resolver()
    # It would cache that there is no value yet.
    resolver.cache = None
    return resolver


async def _zone_servers(name: dns.name.Name) -> tuple[dns.name.Name, list[NameServer]]:
    """Return the name at the end of the challenge's CNAMEs, and the servers of its zone.

    Raises:
        dns.exception.DNSException, _NotFound: the servers cannot be found.
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


async def _wait_for_all(servers: list[NameServer], name: dns.name.Name, value: str) -> None:
    """Wait until every server has the value, since a CA may query any. The caller has the timeout."""
    waiting = list(servers)
    while waiting:
        visible = await asyncio.gather(*(_is_visible_at(server, name, value) for server in waiting))
        waiting = [server for server, seen in zip(waiting, visible, strict=True) if not seen]
        if waiting:
            await asyncio.sleep(TXT_POLL_INTERVAL_S)


async def _is_visible_at(server: NameServer, name: dns.name.Name, value: str) -> bool:
    return any(await asyncio.gather(*(_responds_with(each, server.port, name, value) for each in server.addresses)))


async def _responds_with(address: str, port: int, name: dns.name.Name, value: str) -> bool:
    query = dns.message.make_query(name, dns.rdatatype.TXT)
    try:
        response = await dns.asyncquery.udp(query, address, timeout=TXT_QUERY_TIMEOUT_S, port=port)
    except (dns.exception.DNSException, OSError):
        return False
    texts = {b"".join(each.strings) for found in response.answer for each in found if hasattr(each, "strings")}
    return value.encode() in texts
