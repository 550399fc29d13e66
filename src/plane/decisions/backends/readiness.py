"""Decide the delays and timeouts of readiness probes, and why a backend is not ready.

Pure; `plane.runtime.readiness` sends the probes.
"""

from __future__ import annotations

import enum

from plane.timing import READINESS_FIRST_DELAY_S, READINESS_MAX_ATTEMPT_TIMEOUT_S, READINESS_MAX_DELAY_S

__all__ = [
    "ProbeResult",
    "classify_response",
    "more_informative",
    "next_delay_s",
    "next_probe_timeout_s",
    "not_ready_message",
]

# A backend that needs 400 ms is noticed within 10 ms, one that needs a second within 22 ms.
DELAY_FACTOR = 1.02
# A first page may take longer than one probe. Each probe after a silent one waits longer.
TIMEOUT_FACTOR = 2.0

_HTTP = b"HTTP/"
# Record types alert and handshake of SSL 3 and TLS: RFC 8446, section 5.1.
_TLS = (b"\x15\x03", b"\x16\x03")
# The header of a SETTINGS frame on stream 0, which begins HTTP/2 (RFC 9113, section 3.4): length, type, flags, stream.
_HTTP_2_TYPE = slice(3, 4)


class ProbeResult(enum.Enum):
    """The result of one probe. The value describes to people why the backend is not ready; ``{port}`` is filled in."""

    READY = "it responds to HTTP"
    REFUSED = "nothing listens on port {port}; it must listen on the port in $PORT, on all addresses"
    UNREACHABLE = "port {port} cannot be reached; it must listen on the port in $PORT, on all addresses"
    CLOSED = (
        "connections to port {port} are closed without a response; it must listen on the port in $PORT, on all "
        "addresses, and respond to HTTP there"
    )
    SILENT = "port {port} accepts connections and sends no response; it may hang, or its first page takes longer"
    TLS = "port {port} responds with TLS; it must speak plain HTTP, since the proxy serves HTTPS"
    HTTP_2 = "port {port} speaks HTTP/2 without negotiation; it must respond to HTTP/1.1 too"
    NOT_HTTP = "port {port} responds with something that is not HTTP; it must speak HTTP on the port in $PORT"


def next_delay_s(delay_s: float | None) -> float:
    """Return the seconds until the next probe, given the previous delay; None before the first one."""
    return READINESS_FIRST_DELAY_S if delay_s is None else min(delay_s * DELAY_FACTOR, READINESS_MAX_DELAY_S)


def next_probe_timeout_s(timeout_s: float, result: ProbeResult, first_s: float) -> float:
    """Return the timeout of the next probe: longer after one that was accepted and timed out, else the first one."""
    return min(timeout_s * TIMEOUT_FACTOR, READINESS_MAX_ATTEMPT_TIMEOUT_S) if result is ProbeResult.SILENT else first_s


def classify_response(received: bytes, *, ended: bool) -> ProbeResult | None:
    """Return the result for the first bytes of a response; None if there are too few to decide.

    Args:
        ended: whether the backend has closed the connection, so that no more bytes follow.
    """
    if received.startswith(_HTTP):
        return ProbeResult.READY
    if _HTTP.startswith(received) and not ended:
        return None
    if not received:
        return ProbeResult.CLOSED
    if received.startswith(_TLS):
        return ProbeResult.TLS
    if received.startswith(b"\0\0"):
        if len(received) < _HTTP_2_TYPE.stop and not ended:
            return None
        return ProbeResult.HTTP_2 if received[_HTTP_2_TYPE] == b"\x04" else ProbeResult.NOT_HTTP
    if received in (b"\0", b"\x15", b"\x16") and not ended:
        return None
    return ProbeResult.NOT_HTTP


def more_informative(previous: ProbeResult | None, last: ProbeResult, *, was_cut_short: bool) -> ProbeResult:
    """Return the more informative of two results.

    ``was_cut_short``: the deadline left the last probe less than its timeout, so that its silence means little.
    """
    if previous is None or not was_cut_short or last not in (ProbeResult.SILENT, ProbeResult.UNREACHABLE):
        return last
    # A silent listener is at least a listener.
    was_absent = previous in (ProbeResult.REFUSED, ProbeResult.UNREACHABLE)
    return last if last is ProbeResult.SILENT and was_absent else previous


def not_ready_message(result: ProbeResult, port: int, timeout_s: float) -> str:
    """Return the message to people about a backend that was not ready in time, given its last probe's result."""
    return f"did not respond to HTTP within {timeout_s:g} s: {result.value.format(port=port)}"
