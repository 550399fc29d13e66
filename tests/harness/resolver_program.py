"""A name server that answers as the whole of the DNS would: some records, and what their delegations lead to.

Run as a program: the address to listen on, and a file with a record per line (name, type, value, "; comment").
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

CNAMES_LIMIT = 8
DELEGATION_TIMEOUT_S = 2.0

Records = dict[tuple[dns.name.Name, str], str]


def read(text: str) -> Records:
    """Return the value of each name and type."""
    lines = (line.partition(";")[0].split() for line in text.splitlines())
    return {(dns.name.from_text(line[0]), line[1]): line[2] for line in lines if line}


def respond(records: Records, query: dns.message.Message) -> dns.message.Message:
    """Return the response to a query."""
    response = dns.message.make_response(query, recursion_available=True)
    (question,) = query.question
    name, kind = question.name, dns.rdatatype.to_text(question.rdtype)
    for _ in range(CNAMES_LIMIT):
        if server := _delegated(records, name, kind):
            inner = dns.message.make_query(name, kind)
            try:
                found = dns.query.udp(inner, server, timeout=DELEGATION_TIMEOUT_S, ignore_unexpected=True)
            except (dns.exception.DNSException, OSError):
                response.set_rcode(dns.rcode.SERVFAIL)
                return response
            response.answer += found.answer
            response.set_rcode(found.rcode())
            return response
        own = name if any(known == name for known, _ in records) else dns.name.from_text("*", name.parent())
        if value := records.get((own, kind)):
            response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, value))
            return response
        target = records.get((own, "CNAME"))
        if target is None:
            if not any(known.is_subdomain(name) or known == own for known, _ in records):
                response.set_rcode(dns.rcode.NXDOMAIN)
            return response
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", target))
        name = dns.name.from_text(target)
    return response


def _delegated(records: Records, name: dns.name.Name, kind: str) -> str | None:
    """Return the address of the server of the zone that the name is in, if that is another one."""
    for (zone, its_kind), server in records.items():
        if its_kind == "NS" and name.is_subdomain(zone) and (name, kind) != (zone, "NS"):
            return records[dns.name.from_text(server), "A"]
    return None


def main() -> None:
    """Respond until the program is ended."""
    address, file = sys.argv[1:]
    records = read(Path(file).read_text())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        print("listening", flush=True)
        while True:
            data, peer = server.recvfrom(4096)
            try:
                response = respond(records, dns.message.from_wire(data))
            except (dns.exception.DNSException, ValueError):
                continue
            server.sendto(response.to_wire(), peer)


if __name__ == "__main__":
    main()
