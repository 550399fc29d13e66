"""Probe a backend by HTTP until it responds; used by every runtime that starts backends itself.

Probes start close together and back off: a fast backend is noticed at once, a slow one costs little. Only one probe is
in flight at a time. `plane.decisions.backends.readiness` decides delays, timeouts and the meaning of a probe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from plane.decisions.backends.readiness import (
    ProbeResult,
    classify_response,
    more_informative,
    next_delay_s,
    next_probe_timeout_s,
    not_ready_message,
)
from plane.protocol.addresses import format_socket_address
from plane.runtime.base import StartupTimedOut
from plane.timing import READINESS_FIRST_ATTEMPT_TIMEOUT_S

__all__ = ["wait_until_ready"]

READ_BYTES = 1024


async def wait_until_ready(
    host: str,
    port: int,
    timeout_s: float,
    foreign_listener: Callable[[], Awaitable[str | None]] | None = None,
    *,
    first_probe_timeout_s: float = READINESS_FIRST_ATTEMPT_TIMEOUT_S,
) -> None:
    """Return once one of the backend's own processes responds to ``HEAD /`` with anything that begins with ``HTTP/``.

    Args:
        foreign_listener: returns a description of another process that listens on the port, or None if there is none.
            None: the runtime cannot know.
        first_probe_timeout_s: timeout of the first probe.

    Raises:
        StartupTimedOut: the backend was not ready within ``timeout_s``; the message has the result of the last probe.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + timeout_s
    probe_timeout_s, delay_s, foreign, result = first_probe_timeout_s, None, None, None
    while True:
        left_s = min(probe_timeout_s, end - clock())
        last = await _probe(host, port, left_s)
        result = more_informative(result, last, was_cut_short=left_s < probe_timeout_s)
        if result is ProbeResult.READY:
            foreign = None if foreign_listener is None else await foreign_listener()
            if foreign is None:
                return
        if clock() >= end:
            break
        probe_timeout_s = next_probe_timeout_s(probe_timeout_s, result, first_probe_timeout_s)
        delay_s = next_delay_s(delay_s)
        await asyncio.sleep(min(delay_s, end - clock()))
    if result is ProbeResult.READY and foreign is not None:
        raise StartupTimedOut(
            f"did not become ready within {timeout_s:g} s: {foreign} listens on port {port} and is not one of its "
            "processes"
        )
    raise StartupTimedOut(not_ready_message(result, port, timeout_s))


async def _probe(host: str, port: int, timeout_s: float) -> ProbeResult:
    request = f"HEAD / HTTP/1.1\r\nHost: {format_socket_address(host, port)}\r\nConnection: close\r\n\r\n"
    is_connected = False
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            is_connected = True
            try:
                writer.write(request.encode())
                received, result = b"", None
                while result is None:
                    part = await reader.read(READ_BYTES)
                    received += part
                    result = classify_response(received, ended=not part)
                return result
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        return ProbeResult.SILENT if is_connected else ProbeResult.UNREACHABLE
    except ConnectionRefusedError:
        return ProbeResult.REFUSED
    except OSError:
        return ProbeResult.CLOSED if is_connected else ProbeResult.UNREACHABLE
