"""How long may a readiness probe take, and why is a backend not ready? Pure; `plane.runtime.readiness` probes."""

from __future__ import annotations

import enum

from plane.timing import READINESS_FIRST_DELAY_S, READINESS_MAX_ATTEMPT_TIMEOUT_S, READINESS_MAX_DELAY_S

__all__ = [
    "Probe",
    "classify_response",
    "more_informative",
    "next_delay_s",
    "next_probe_timeout_s",
    "not_ready_message",
]

# A backend that needs 400 ms is seen within 10 ms, one that needs a second within 22 ms.
DELAY_FACTOR = 1.02
# A first page that takes longer than a try is asked for again, each time with more patience.
TRY_FACTOR = 2.0

_HTTP = b"HTTP/"
# Record types alert and handshake of SSL 3 and TLS: RFC 8446, section 5.1.
_TLS = (b"\x15\x03", b"\x16\x03")
# The header of a SETTINGS frame on stream 0, which begins HTTP/2 (RFC 9113, section 3.4): length, type, flags, stream.
_HTTP_2_TYPE = slice(3, 4)


class Probe(enum.Enum):
    """What a probe met. The value says why the backend is not ready, for people; ``{port}`` is filled in."""

    READY = "it answers HTTP"
    REFUSED = "nothing listens on port {port}; it must listen on the port in $PORT, on all addresses"
    UNREACHABLE = "port {port} cannot be reached; it must listen on the port in $PORT, on all addresses"
    CLOSED = (
        "connections to port {port} are closed without an answer; it must listen on the port in $PORT, on all "
        "addresses, and answer HTTP there"
    )
    SILENT = "port {port} accepts connections and answers nothing; it may hang, or its first page takes longer"
    TLS = "port {port} answers TLS; it must speak plain HTTP, since the proxy serves HTTPS"
    HTTP_2 = "port {port} speaks HTTP/2 without being asked to; it must answer HTTP/1.1 too"
    NOT_HTTP = "port {port} answers something that is not HTTP; it must speak HTTP on the port in $PORT"


def next_delay_s(delay_s: float | None) -> float:
    """Return the seconds between two probes, from those before; None: there were none."""
    return READINESS_FIRST_DELAY_S if delay_s is None else min(delay_s * DELAY_FACTOR, READINESS_MAX_DELAY_S)


def next_probe_timeout_s(limit_s: float, probe: Probe, first_s: float) -> float:
    """Return how long the next probe may take: longer after one that was accepted and had no answer in time."""
    return min(limit_s * TRY_FACTOR, READINESS_MAX_ATTEMPT_TIMEOUT_S) if probe is Probe.SILENT else first_s


def classify_response(received: bytes, *, ended: bool) -> Probe | None:
    """Return what the first bytes of a response are; None: there are too few to tell.

    Args:
        ended: nothing follows.
    """
    if received.startswith(_HTTP):
        return Probe.READY
    if _HTTP.startswith(received) and not ended:
        return None
    if not received:
        return Probe.CLOSED
    if received.startswith(_TLS):
        return Probe.TLS
    if received.startswith(b"\0\0"):
        if len(received) < _HTTP_2_TYPE.stop and not ended:
            return None
        return Probe.HTTP_2 if received[_HTTP_2_TYPE] == b"\x04" else Probe.NOT_HTTP
    if received in (b"\0", b"\x15", b"\x16") and not ended:
        return None
    return Probe.NOT_HTTP


def more_informative(former: Probe | None, last: Probe, last_limit_s: float, first_s: float) -> Probe:
    """Return which of two probes says more: at the deadline the last one may have had no time to meet anything."""
    had_no_time = last in (Probe.SILENT, Probe.UNREACHABLE) and last_limit_s < first_s / 10
    return last if former is None or not had_no_time else former


def not_ready_message(probe: Probe, port: int, limit_s: float) -> str:
    """Return what to tell people of a backend that was not ready in time; ``probe``: what the last one met."""
    return f"did not answer HTTP within {limit_s:g} s: {probe.value.format(port=port)}"
