"""The row about status streams: a thousand readers of one backend, against a server that does nothing else."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from bench.controller_load import ROUNDS, Bench, median, row
from bench.drones import BenchDrone
from bench.processes import serving
from bench.stream_readers import StreamReaders, stream_readers

__all__ = ["watchers"]

WATCHERS = 1000
_STATE = {"status": "terminating", "last_status": "ready", "termination": "soft", "reason": "external"}
# The same as the controller writes it.
_ENTRY = (
    b'data: {"status":"terminating","time":1795479697374,"termination_reason":"external","termination_kind":"soft"}\n'
    b"id: terminating\n\n"
)
TERMINATING = b"%x\r\n%b\r\n" % (len(_ENTRY), _ENTRY)


async def watchers(bench: Bench, drones: list[BenchDrone], folder: Path) -> None:
    """A state event, from the drone's word to 1,000 readers of one backend's stream; and the same bytes, without Plane.

    The floor is a server that has nothing to do but to write what it is sent to its readers.
    """
    ours, floor = [], []
    async with serving([sys.executable, "-m", "bench.bare_stream"], folder) as bare:
        for _ in range(ROUNDS):
            backend = (await bench.new_key())["backend_id"]
            await BenchDrone.until_stored(drones, backend)
            with stream_readers(bench.server.port, f"/pub/b/{backend}/status-stream", WATCHERS) as readers:
                await readers.until_all_saw(b"id: ready\n")
                ours.append(await _p99_ms(readers, partial(drones[0].report, backend, _STATE)))
            with stream_readers(bare.port, "/", WATCHERS) as readers:
                await readers.until_all_saw(b"\r\n\r\n")
                floor.append(await _p99_ms(readers, partial(_send, bare.port, TERMINATING)))
    row(
        f"state event of a drone to {WATCHERS:,} watchers' streams, p99 (a bare server writing the same bytes)",
        f"{median(ours):.1f} ms ({median(floor):.1f} ms)",
        must="20 ms",
        aim="5 ms",
    )


async def _p99_ms(readers: StreamReaders, tell: Callable[[], Awaitable[None]]) -> float:
    """From ``tell`` until 99 of a hundred readers have seen `terminating`."""
    seen = asyncio.create_task(readers.until_all_saw(b"id: terminating\n"))
    # Its thread is in epoll by then.
    await asyncio.sleep(0.1)
    start = time.perf_counter()
    await tell()
    return ((await seen)[WATCHERS * 99 // 100 - 1] - start) * 1000


async def _send(port: int, data: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.close()
