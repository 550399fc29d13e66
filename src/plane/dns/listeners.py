"""Answers DNS packets over UDP and TCP. What is answered is decided in `zone`; values come from `challenge_values`.

A query that was answered with a value is answered again from its bytes for a second, without being read: resolvers ask
the same thing in the same words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import structlog

from plane.decisions.rate_limiter import SourceRate, network_of
from plane.dns.challenge_values import Known, Questions
from plane.dns.zone import AskController, Zone, answer_with, decide, encode
from plane.tasks import OwnedTasks
from plane.timing import DNS_TCP_IDLE_TIMEOUT_S

__all__ = ["Answerer", "TcpConnection", "UdpEndpoint"]

# Queries that wait for the controller; each is a task.
TASKS_LIMIT = 2_000
# Answers kept by the bytes of their queries.
ANSWERS_LIMIT = 10_000
TCP_CONNECTIONS_LIMIT = 500

Reply = Callable[[bytes], None]

log = structlog.get_logger("plane.dns")


class Answerer:
    """Answers packets, whatever brought them.

    Attributes:
        connections: open TCP connections.
    """

    def __init__(self, zone: Zone, questions: Questions) -> None:
        self._zone = zone
        self._questions = questions
        self._rate = SourceRate()
        self._clock = asyncio.get_running_loop().time
        self._answers: dict[bytes, tuple[bytes, float]] = {}
        self._tasks = OwnedTasks(lambda error: log.error("query not answered", exc_info=error))
        self.connections: set[TcpConnection] = set()

    def serve(self, wire: bytes, source: str, reply: Reply, *, over_udp: bool) -> None:
        """Answer a packet now, later or never."""
        if over_udp:
            kept = self._answers.get(wire[2:])
            if kept is not None and self._clock() < kept[1]:
                reply(wire[:2] + kept[0])
                return
        decision = decide(self._zone, wire)
        if decision is None:
            return
        if not isinstance(decision, AskController):
            if self._allows(source):
                reply(encode(decision, udp_size=decision.payload if over_udp else None))
            return
        known = self._questions.known(decision.cluster)
        if known is not None:
            if known.values or self._allows(source):
                self._answer(decision, wire, known, reply, over_udp=over_udp)
        elif len(self._tasks) < TASKS_LIMIT and self._allows(source):
            self._tasks.start(self._ask(decision, wire, reply, over_udp=over_udp))

    async def close(self) -> None:
        """End what is under way."""
        for connection in list(self.connections):
            connection.abort()
        await self._tasks.end()

    def _allows(self, source: str) -> bool:
        return self._rate.allows(network_of(source), self._clock())

    async def _ask(self, asked: AskController, wire: bytes, reply: Reply, *, over_udp: bool) -> None:
        self._answer(asked, wire, await self._questions.ask(asked.cluster), reply, over_udp=over_udp)

    def _answer(self, asked: AskController, wire: bytes, known: Known | None, reply: Reply, *, over_udp: bool) -> None:
        response = answer_with(asked, None if known is None else known.values)
        size = asked.query.payload if asked.query.edns >= 0 else 0
        packet = encode(response, udp_size=size if over_udp else None)
        if over_udp and known is not None and known.values:
            if len(self._answers) >= ANSWERS_LIMIT:
                self._answers.clear()
            self._answers[wire[2:]] = (packet[2:], known.until)
        reply(packet)


class UdpEndpoint(asyncio.DatagramProtocol):
    """A UDP socket."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no common class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._answerer.serve(data, addr[0], lambda packet: self._send(packet, addr), over_udp=True)

    def _send(self, packet: bytes, address: tuple[str, int]) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(packet, address)


class TcpConnection(asyncio.Protocol):
    """A TCP connection (RFC 7766): queries with their lengths before them, several if the asker likes."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._source = ""
        self._received = b""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if peer is None or len(self._answerer.connections) >= TCP_CONNECTIONS_LIMIT:
            self.abort()
            return
        self._source = peer[0]
        self._answerer.connections.add(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._answerer.connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 2 and len(self._received) >= (end := 2 + int.from_bytes(self._received[:2])):
            wire, self._received = self._received[2:end], self._received[end:]
            self._wait()
            self._answerer.serve(wire, self._source, self._send, over_udp=False)

    def pause_writing(self) -> None:
        # Whoever does not read its answers asks no more.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(DNS_TCP_IDLE_TIMEOUT_S, self.abort)

    def _send(self, packet: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(len(packet).to_bytes(2) + packet)
