"""Does a backend answer HTTP yet? Asks until it does; used by every runtime.

Probes start close together and back off, so a fast backend is seen at once and a slow one is left in peace. There is
one at a time, and each may take longer than the one before if that had no answer: a first page may take its time.
What they may cost, and what they mean, is decided in `plane.decisions.backends.readiness`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from plane.decisions.backends.readiness import (
    Probe,
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
    limit_s: float,
    foreign_listener: Callable[[], Awaitable[str | None]] | None = None,
    *,
    first_try_s: float = READINESS_FIRST_ATTEMPT_TIMEOUT_S,
) -> None:
    """Return once ``HEAD /`` is answered with anything that begins with ``HTTP/``, by a process of the backend's own.

    Args:
        foreign_listener: says which other process listens on the port, if one does; None: this cannot be known.
        first_try_s: how long the first probe may take.

    Raises:
        StartupTimedOut: not within ``limit_s``; says what the last probe met.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + limit_s
    try_s, delay_s, foreign, probe = first_try_s, None, None, None
    while True:
        left_s = min(try_s, end - clock())
        probe = more_informative(probe, await _probe(host, port, left_s), left_s, first_try_s)
        if probe is Probe.READY:
            foreign = None if foreign_listener is None else await foreign_listener()
            if foreign is None:
                return
        if clock() >= end:
            break
        try_s = next_probe_timeout_s(try_s, probe, first_try_s)
        delay_s = next_delay_s(delay_s)
        await asyncio.sleep(min(delay_s, end - clock()))
    if probe is Probe.READY and foreign is not None:
        raise StartupTimedOut(
            f"did not become ready within {limit_s:g} s: {foreign} listens on port {port}, and is none of its processes"
        )
    raise StartupTimedOut(not_ready_message(probe, port, limit_s))


async def _probe(host: str, port: int, limit_s: float) -> Probe:
    request = f"HEAD / HTTP/1.1\r\nHost: {format_socket_address(host, port)}\r\nConnection: close\r\n\r\n"
    is_connected = False
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(host, port)
            is_connected = True
            try:
                writer.write(request.encode())
                received, probe = b"", None
                while probe is None:
                    part = await reader.read(READ_BYTES)
                    received += part
                    probe = classify_response(received, ended=not part)
                return probe
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        return Probe.SILENT if is_connected else Probe.UNREACHABLE
    except ConnectionRefusedError:
        return Probe.REFUSED
    except OSError:
        return Probe.CLOSED if is_connected else Probe.UNREACHABLE
