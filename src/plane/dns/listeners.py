"""DNS over UDP and TCP. `zone` decides the responses, `challenge_values` has the values.

A response with a value is cached for a second by the bytes of its query: resolvers repeat their queries to the byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import structlog

from plane.decisions.rate_limiter import RateLimiter, network_of
from plane.dns.challenge_values import CachedValues, ChallengeValues
from plane.dns.zone import LookupNeeded, Zone, decide, encode, respond_with
from plane.tasks import OwnedTasks
from plane.timing import DNS_TCP_IDLE_TIMEOUT_S

__all__ = ["QueryHandler", "TcpConnection", "UdpEndpoint"]

# Queries that wait for the controller; each is a task.
TASKS_LIMIT = 2_000
# Responses cached by the bytes of their queries.
RESPONSES_LIMIT = 10_000
TCP_CONNECTIONS_LIMIT = 500

Reply = Callable[[bytes], None]

log = structlog.get_logger("plane.dns")


class QueryHandler:
    """Handles query packets of both transports.

    Attributes:
        connections: open TCP connections.
    """

    def __init__(self, zone: Zone, values: ChallengeValues) -> None:
        self._zone = zone
        self._values = values
        self._rate = RateLimiter()
        self._clock = asyncio.get_running_loop().time
        self._responses: dict[bytes, tuple[bytes, float]] = {}
        self._tasks = OwnedTasks(lambda error: log.error("query failed", exc_info=error))
        self.connections: set[TcpConnection] = set()

    def handle(self, wire: bytes, source: str, reply: Reply, *, over_udp: bool) -> None:
        """Send the response to a packet through ``reply``, now or later. Some packets get none."""
        if over_udp:
            cached = self._responses.get(wire[2:])
            if cached is not None and self._clock() < cached[1]:
                reply(wire[:2] + cached[0])
                return
        decision = decide(self._zone, wire)
        if decision is None:
            return
        if not isinstance(decision, LookupNeeded):
            if self._allows(source):
                reply(encode(decision, udp_size=decision.payload if over_udp else None))
            return
        cached_values = self._values.cached(decision.cluster)
        if cached_values is not None:
            if cached_values.values or self._allows(source):
                self._respond(decision, wire, cached_values, reply, over_udp=over_udp)
        # Otherwise anybody could deny a CA its value by queries with source addresses of the CA's network.
        elif len(self._tasks) < TASKS_LIMIT and (self._values.had_values(decision.cluster) or self._allows(source)):
            self._tasks.start(self._fetch(decision, wire, reply, over_udp=over_udp))

    async def close(self) -> None:
        """Close all connections, and end all queries in flight."""
        for connection in list(self.connections):
            connection.abort()
        await self._tasks.end()

    def _allows(self, source: str) -> bool:
        return self._rate.allows(network_of(source), self._clock())

    async def _fetch(self, lookup: LookupNeeded, wire: bytes, reply: Reply, *, over_udp: bool) -> None:
        self._respond(lookup, wire, await self._values.fetch(lookup.cluster), reply, over_udp=over_udp)

    def _respond(
        self, lookup: LookupNeeded, wire: bytes, values: CachedValues | None, reply: Reply, *, over_udp: bool
    ) -> None:
        response = respond_with(lookup, None if values is None else values.values)
        size = lookup.query.payload if lookup.query.edns >= 0 else 0
        packet = encode(response, udp_size=size if over_udp else None)
        if over_udp and values is not None and values.values:
            if len(self._responses) >= RESPONSES_LIMIT:
                self._responses.clear()
            self._responses[wire[2:]] = (packet[2:], values.expires_at)
        reply(packet)


class UdpEndpoint(asyncio.DatagramProtocol):
    """A UDP socket."""

    def __init__(self, handler: QueryHandler) -> None:
        self._handler = handler
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not share a base class with asyncio's.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._handler.handle(data, addr[0], lambda packet: self._send(packet, addr), over_udp=True)

    def _send(self, packet: bytes, address: tuple[str, int]) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(packet, address)


class TcpConnection(asyncio.Protocol):
    """A TCP connection (RFC 7766): queries, each with its length before it."""

    def __init__(self, handler: QueryHandler) -> None:
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._source = ""
        self._received = b""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if peer is None or len(self._handler.connections) >= TCP_CONNECTIONS_LIMIT:
            self.abort()
            return
        self._source = peer[0]
        self._handler.connections.add(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 2 and len(self._received) >= (end := 2 + int.from_bytes(self._received[:2])):
            wire, self._received = self._received[2:end], self._received[end:]
            self._wait()
            self._handler.handle(wire, self._source, self._send, over_udp=False)

    def pause_writing(self) -> None:
        # A client that does not read its responses gets no further queries read.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(DNS_TCP_IDLE_TIMEOUT_S, self.abort)

    def _send(self, packet: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(len(packet).to_bytes(2) + packet)
