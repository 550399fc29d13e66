"""What is a DNS query answered with? Page 5, "DNS", as pure functions on messages; `server` does it.

TXT inside the zone is the business of a controller; SOA and NS of the zone itself are answered here, so that
resolvers accept the delegation; another type is NOTIMP, a name outside the zone FORMERR, as the original has it.
"""

from __future__ import annotations

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

__all__ = ["ANSWER_TTL_S", "AskController", "Zone", "answer_with", "decide", "encode"]

# Not longer: a challenge's value changes from one order to the next, within seconds.
ANSWER_TTL_S = 1
# Of SOA and NS, which do not change.
ZONE_TTL_S = 3600
CHALLENGE_LABEL = b"_acme-challenge"
# What travels over UDP without fragments (DNS flag day 2020), and without EDNS (RFC 1035, section 4.2.1).
UDP_LIMIT_BYTES = 1232
PLAIN_UDP_LIMIT_BYTES = 512
HEADER_BYTES = 12


@dataclass(frozen=True, slots=True)
class AskController:
    """The query is for this cluster's challenge; `answer_with` its values."""

    query: dns.message.Message
    cluster: str


class Zone:
    """A zone by name; None: no zone, each ``_acme-challenge.{cluster}`` is answered (for tests).

    Raises:
        ValueError: not a domain name.
    """

    def __init__(self, name: str | None) -> None:
        try:
            self.origin = None if name is None else dns.name.from_text(name)
        except dns.exception.DNSException as error:
            raise ValueError(str(error)) from None

    def cluster_of(self, name: dns.name.Name) -> str | None:
        """The cluster that ``name`` is about, in lower case; None if it is outside the zone."""
        if self.origin is None:
            is_challenge = name.labels[0].lower() == CHALLENGE_LABEL and len(name.labels) > 2
            inside = dns.name.Name(name.labels[1:]) if is_challenge else None
        else:
            inside = name.relativize(self.origin) if name.is_subdomain(self.origin) else None
        return None if inside is None else inside.to_text(omit_final_dot=True).lower()


def decide(zone: Zone, wire: bytes) -> AskController | dns.message.Message | None:
    """What to do about a packet: ask, answer, or nothing (it is no query, and may be an answer to one of nobody's)."""
    if len(wire) < HEADER_BYTES or wire[2] & 0x80:
        return None
    try:
        query = dns.message.from_wire(wire)
    except dns.exception.DNSException:
        return _bare_answer(wire, dns.rcode.FORMERR)
    if query.opcode() != dns.opcode.QUERY:
        return _bare_answer(wire, dns.rcode.NOTIMP)
    if len(query.question) != 1 or query.question[0].rdclass != dns.rdataclass.IN:
        return _answer(query, dns.rcode.FORMERR)
    question = query.question[0]
    cluster = zone.cluster_of(question.name)
    if cluster is None:
        return _answer(query, dns.rcode.FORMERR)
    at_apex = zone.origin is not None and question.name == zone.origin
    if question.rdtype == dns.rdatatype.TXT:
        return _answer(query, dns.rcode.NOERROR) if at_apex else AskController(query, cluster)
    if at_apex and question.rdtype in (dns.rdatatype.SOA, dns.rdatatype.NS):
        return _apex_answer(query, zone.origin, question.rdtype)
    return _answer(query, dns.rcode.NOTIMP)


def answer_with(asked: AskController, values: tuple[str, ...] | None) -> dns.message.Message:
    """The answer with a cluster's values; empty if there are none, SERVFAIL for None: nobody could be asked."""
    if values is None:
        return _answer(asked.query, dns.rcode.SERVFAIL)
    response = _answer(asked.query, dns.rcode.NOERROR)
    if values:
        texts = [f'"{_escaped(value)}"' for value in values]
        name = asked.query.question[0].name
        response.answer.append(dns.rrset.from_text_list(name, ANSWER_TTL_S, "IN", "TXT", texts))
    return response


def encode(response: dns.message.Message, *, udp_size: int | None) -> bytes:
    """The packet; over UDP with TC set, and empty, if it is larger than what the asker takes.

    ``udp_size``: what the query's EDNS offers, 0 without EDNS; None over TCP.
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


def _answer(query: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    """An answer without records, no larger than its query."""
    response = dns.message.make_response(query, recursion_available=False, our_payload=UDP_LIMIT_BYTES)
    response.flags |= dns.flags.AA
    # Of the extension only that it is understood: an echo of options would make the answer larger.
    if query.edns >= 0:
        response.use_edns(0, payload=UDP_LIMIT_BYTES, options=[])
    response.set_rcode(rcode)
    return response


def _bare_answer(wire: bytes, rcode: dns.rcode.Rcode) -> dns.message.Message:
    """An answer to what could not be read beyond its header."""
    response = dns.message.Message(id=int.from_bytes(wire[:2]))
    response.flags = dns.flags.QR | (int.from_bytes(wire[2:4]) & dns.flags.RD)
    response.set_opcode(dns.opcode.from_flags(int.from_bytes(wire[2:4])))
    response.set_rcode(rcode)
    return response


def _apex_answer(
    query: dns.message.Message, origin: dns.name.Name | None, rdtype: dns.rdatatype.RdataType
) -> dns.message.Message:
    """SOA or NS of the zone. The zone is its own name server: the delegation's glue says where that is."""
    response = _answer(query, dns.rcode.NOERROR)
    name = str(origin)
    text = name if rdtype == dns.rdatatype.NS else f"{name} hostmaster.{name} 1 3600 600 86400 {ANSWER_TTL_S}"
    response.answer.append(dns.rrset.from_text(query.question[0].name, ZONE_TTL_S, "IN", rdtype, text))
    return response
