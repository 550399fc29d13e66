"""A running container's output, as the engine keeps it. Used by `docker.runtime`."""

from __future__ import annotations

import sys
import time

from plane.protocol.logs import LogLine
from plane.runtime.docker.engine import DockerEngine, parse_time_ns

__all__ = ["container_lines", "split_frames"]

# Of one reading; what is beyond it is read by the next one.
READ_LIMIT_BYTES = 512 * 1024
HEADER_BYTES = 8
UNSETTLED_NS = 250_000_000


async def container_lines(
    engine: DockerEngine,
    container: str,
    after_ns: int | None,
    tail: int | None,
    *,
    running: bool,
    limit_bytes: int = READ_LIMIT_BYTES,
) -> list[LogLine]:
    """Lines after a time, else the last ``tail`` ones, else from the beginning; in order of their times.

    Raises:
        EngineRefused, BackendFailed: they cannot be read: the container is gone, or its log driver keeps nothing.
    """
    params = {"stdout": "1", "stderr": "1", "timestamps": "1"}
    if after_ns is not None:
        params["since"] = f"{after_ns // 1_000_000_000}.{after_ns % 1_000_000_000:09d}"
    elif tail is not None:
        params["tail"] = str(tail)
    data = bytearray()
    async with engine.answer("tell the output", "GET", f"containers/{container}/logs", params=params) as response:
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) >= limit_bytes:
                break
    # The engine stamps stdout and stderr side by side: a line may come after one with a later time. Whoever goes on
    # after that one would never see it, so whoever follows gets the very last moment with the next reading.
    settled_ns = time.time_ns() - UNSETTLED_NS if running and after_ns is not None else sys.maxsize
    lines = []
    for payload in split_frames(bytes(data)):
        for row in payload.decode(errors="replace").splitlines():
            stamp, _, text = row.partition(" ")
            time_ns = parse_time_ns(stamp)
            if (after_ns or 0) < time_ns < settled_ns:
                lines.append(LogLine(time_ns, text.replace("\0", "\N{REPLACEMENT CHARACTER}")))
    # Two streams are stamped side by side.
    return sorted(lines, key=lambda line: line.time_ns)


def split_frames(data: bytes) -> list[bytes]:
    """The payloads of the engine's frames (a byte for the stream, three zeros, four of length) that are there whole."""
    payloads = []
    position = 0
    while position + HEADER_BYTES <= len(data):
        length = int.from_bytes(data[position + 4 : position + HEADER_BYTES], "big")
        position += HEADER_BYTES
        payloads.append(data[position : position + length])
        position += length
    if position > len(data) and payloads:
        # A row without its end would be taken for a whole one.
        payloads.pop()
    return payloads
