"""Decides the responses to DNS queries, as pure functions on messages (docs/reference/protocol/dns.md).

A controller has the TXT values inside the zone. SOA and NS of the zone itself are decided here, so that resolvers
accept the delegation. Another type inside the zone has no data: NOERROR with the zone's SOA (RFC 2308, section 2.2),
since strict resolvers give up a name server that responds with NOTIMP. A name outside the zone is FORMERR, as in Plane
0.5.5.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

__all__ = ["RESPONSE_TTL_S", "LookupNeeded", "Zone", "decide", "encode", "respond_with"]

# Short, since the value of a challenge changes from one order to the next, within seconds.
RESPONSE_TTL_S = 1
# Of SOA and NS, which do not change.
ZONE_TTL_S = 3600
# How long a resolver caches that there is no value. One can appear at any moment.
NO_DATA_TTL_S = RESPONSE_TTL_S
# Zone transfers, which have more than one response (RFC 5936, RFC 1995), and the mail types of RFC 1035.
TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR, dns.rdatatype.MAILA, dns.rdatatype.MAILB)
CHALLENGE_LABEL = b"_acme-challenge"
# The largest UDP response without fragmentation (DNS flag day 2020), and without EDNS (RFC 1035, section 4.2.1).
UDP_LIMIT_BYTES = 1232
PLAIN_UDP_LIMIT_BYTES = 512
HEADER_BYTES = 12


@dataclass(frozen=True, slots=True)
class LookupNeeded:
    """The query is for the challenge of ``cluster``; `respond_with` makes the response. ``origin`` is the zone's."""

    query: dns.message.Message
    cluster: str
    origin: dns.name.Name | None


class Zone:
    """A zone by name. None: no zone, each ``_acme-challenge.{cluster}`` has a response (for tests).

    Raises:
        ValueError: not a domain name, or the root (an empty text).
    """

    def __init__(self, name: str | None) -> None:
        try:
            self.origin = None if name is None else dns.name.from_text(name)
        except dns.exception.DNSException as error:
            raise ValueError(str(error)) from None
        if self.origin == dns.name.root:
            raise ValueError("it is the root of all names; name the zone that is delegated to this server")

    def cluster_of(self, name: dns.name.Name) -> str | None:
        """Return the cluster that ``name`` stands for, in lower case, or None outside of the zone."""
        if self.origin is None:
            is_challenge = name.labels[0].lower() == CHALLENGE_LABEL and len(name.labels) > 2
            inside = dns.name.Name(name.labels[1:]) if is_challenge else None
        else:
            inside = name.relativize(self.origin) if name.is_subdomain(self.origin) else None
        return None if inside is None else inside.to_text(omit_final_dot=True).lower()


def decide(zone: Zone, wire: bytes) -> LookupNeeded | dns.message.Message | None:
    """Return the lookup that a packet needs, or its response. None: the packet is not a query and gets no response."""
    if len(wire) < HEADER_BYTES or wire[2] & 0x80:
        return None
    try:
        query = dns.message.from_wire(wire)
    except dns.exception.DNSException:
        return _header_only_response(wire, dns.rcode.FORMERR)
    if query.opcode() != dns.opcode.QUERY:
        return _header_only_response(wire, dns.rcode.NOTIMP)
    if len(query.question) != 1 or query.question[0].rdclass != dns.rdataclass.IN:
        return _response(query, dns.rcode.FORMERR)
    question = query.question[0]
    cluster = zone.cluster_of(question.name)
    if cluster is None:
        return _response(query, dns.rcode.FORMERR)
    if question.rdtype in TRANSFERS:
        return _response(query, dns.rcode.NOTIMP)
    at_apex = zone.origin is not None and question.name == zone.origin
    if at_apex and question.rdtype in (dns.rdatatype.SOA, dns.rdatatype.NS, dns.rdatatype.ANY):
        response = _response(query, dns.rcode.NOERROR)
        response.answer.append(_apex_record(question.name, question.rdtype, ZONE_TTL_S))
        return response
    # A response to ANY may have a part of the records (RFC 8482, section 4.1).
    if not at_apex and question.rdtype in (dns.rdatatype.TXT, dns.rdatatype.ANY):
        return LookupNeeded(query, cluster, zone.origin)
    return _no_data(query, zone.origin)


def respond_with(lookup: LookupNeeded, values: tuple[str, ...] | None) -> dns.message.Message:
    """Return the response with a cluster's values: no data without any, SERVFAIL for None (the lookup failed)."""
    if values is None:
        return _response(lookup.query, dns.rcode.SERVFAIL)
    if not values:
        return _no_data(lookup.query, lookup.origin)
    response = _response(lookup.query, dns.rcode.NOERROR)
    texts = [f'"{_escaped(value)}"' for value in values]
    name = lookup.query.question[0].name
    response.answer.append(dns.rrset.from_text_list(name, RESPONSE_TTL_S, "IN", "TXT", texts))
    return response


def encode(response: dns.message.Message, *, udp_size: int | None) -> bytes:
    """Return the packet. Over UDP it is empty and has TC set if it exceeds the size that the client accepts.

    ``udp_size``: the size of the query's EDNS, 0 without EDNS; None over TCP.
    """
    limit = 65535
    if udp_size is not None:
        limit = min(max(udp_size, PLAIN_UDP_LIMIT_BYTES), UDP_LIMIT_BYTES)
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.answer.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit)


def _escaped(value: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "".join(f"\\{byte:03d}" for byte in c.encode()) for c in value)


def _response(query: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    """Return a response without records, no larger than its query."""
    response = dns.message.make_response(query, recursion_available=False, our_payload=UDP_LIMIT_BYTES)
    response.flags |= dns.flags.AA
    # No options are echoed: they would make the response larger than the query.
    if query.edns >= 0:
        response.use_edns(0, payload=UDP_LIMIT_BYTES, options=[])
    response.set_rcode(rcode)
    return response


def _header_only_response(wire: bytes, rcode: dns.rcode.Rcode) -> dns.message.Message:
    """Return the response to a packet that is malformed after its header."""
    response = dns.message.Message(id=int.from_bytes(wire[:2]))
    response.flags = dns.flags.QR | (int.from_bytes(wire[2:4]) & dns.flags.RD)
    response.set_opcode(dns.opcode.from_flags(int.from_bytes(wire[2:4])))
    response.set_rcode(rcode)
    return response


def _no_data(query: dns.message.Message, origin: dns.name.Name | None) -> dns.message.Message:
    """Return the response without data of this type. The zone's SOA lets resolvers cache it."""
    response = _response(query, dns.rcode.NOERROR)
    if origin is not None:
        response.authority.append(_no_data_soa(origin))
    return response


@functools.cache
def _no_data_soa(origin: dns.name.Name) -> dns.rrset.RRset:
    # Cached, since parsing the text takes longer than the rest of a response.
    return _apex_record(origin, dns.rdatatype.SOA, NO_DATA_TTL_S)


def _apex_record(origin: dns.name.Name, rdtype: dns.rdatatype.RdataType, ttl_s: int) -> dns.rrset.RRset:
    """Return NS or SOA of the zone. The zone is its own name server; the glue of its delegation has the address."""
    name = str(origin)
    if rdtype == dns.rdatatype.NS:
        return dns.rrset.from_text(origin, ttl_s, "IN", dns.rdatatype.NS, name)
    text = f"{name} hostmaster.{name} 1 3600 600 86400 {NO_DATA_TTL_S}"
    return dns.rrset.from_text(origin, ttl_s, "IN", dns.rdatatype.SOA, text)
