"""Read the output of a container from the engine. Used by `docker.runtime` and `docker.container`."""

from __future__ import annotations

import sys
import time

from plane.protocol.logs import LogLine
from plane.runtime.docker.engine import DockerEngine, parse_time_ns

__all__ = ["container_lines", "split_frames"]

# Of one call; the next call reads on.
READ_LIMIT_BYTES = 512 * 1024
HEADER_BYTES = 8
# How long the engine may take to order the time stamps of stdout and stderr.
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
    """Return the lines after a time, else the last ``tail`` ones, else from the beginning, ordered by time.

    Raises:
        EngineRefused: the container was removed, or its log driver stores nothing.
        BackendFailed: the engine does not respond.
    """
    params = {"stdout": "1", "stderr": "1", "timestamps": "1"}
    if after_ns is not None:
        params["since"] = f"{after_ns // 1_000_000_000}.{after_ns % 1_000_000_000:09d}"
    elif tail is not None:
        params["tail"] = str(tail)
    data = bytearray()
    async with engine.request("return the output", "GET", f"containers/{container}/logs", params=params) as response:
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) >= limit_bytes:
                break
    # The engine stamps stdout and stderr concurrently, so a line may follow one with a later time. A reader that
    # continues after the later one would miss it. So a following reader gets the most recent lines with its next call.
    settled_ns = time.time_ns() - UNSETTLED_NS if running and after_ns is not None else sys.maxsize
    lines = []
    for payload in split_frames(bytes(data)):
        for row in payload.decode(errors="replace").splitlines():
            stamp, _, text = row.partition(" ")
            time_ns = parse_time_ns(stamp)
            if (after_ns or 0) < time_ns < settled_ns:
                lines.append(LogLine(time_ns, text.replace("\0", "\N{REPLACEMENT CHARACTER}")))
    return sorted(lines, key=lambda line: line.time_ns)


def split_frames(data: bytes) -> list[bytes]:
    """Return the payloads of the complete frames.

    A frame of the engine has a byte for the stream, three zeros, four bytes for the length, and the payload.
    """
    payloads = []
    position = 0
    while position + HEADER_BYTES <= len(data):
        length = int.from_bytes(data[position + 4 : position + HEADER_BYTES], "big")
        position += HEADER_BYTES
        payloads.append(data[position : position + length])
        position += length
    if position > len(data) and payloads:
        # An incomplete line would be taken for a complete one.
        payloads.pop()
    return payloads
