"""Connect against its floor: ``python -m bench.connect``.

An existing and a new key against the same SQL sent by a bare client, one at a time, interleaved; and connect to the
first byte through the proxy against starting the same process by hand and polling its port. Medians.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import uvloop

from bench.bare import BareClient
from plane.random_ids import random_name

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "60"))
PORT, PROXY_PORT = 29180, 29190
CONTROL = f"http://127.0.0.1:{PORT}"
SERVER = (
    "import os, socket\n"
    "s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
    "while True:\n"
    "    c, _ = s.accept(); c.recv(65536)\n"
    "    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok'); c.close()\n"
)
COMMAND = [sys.executable, "-S", "-c", SERVER]


async def timed(work: Any) -> float:
    """Milliseconds that ``work`` takes."""
    start = time.perf_counter()
    await work
    return (time.perf_counter() - start) * 1000


class Bench:
    """A running `plane dev`, a client of it, and a bare connection to its database."""

    def __init__(self, http: aiohttp.ClientSession, sql: asyncpg.Connection[Any]) -> None:
        self.http = http
        self.bare = BareClient(sql, f"localhost:{PROXY_PORT}")

    async def connect(self, **request: Any) -> dict[str, Any]:
        """A connect request."""
        async with self.http.post(f"{CONTROL}/ctrl/connect", json=request) as answer:
            body: dict[str, Any] = await answer.json()
            assert answer.status == 200, body
            return body

    async def new_backend_to_first_byte(self) -> str:
        """What a user waits for: connect, then the page."""
        executable = {"command": COMMAND}
        answer = await self.connect(key={"name": random_name()}, spawn_config={"executable": executable})
        async with self.http.get(answer["url"]) as page:
            assert await page.text() == "ok"
        return str(answer["backend_id"])

    async def by_hand(self) -> None:
        """The floor: start the same process, and ask its port until it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(COMMAND, env={**os.environ, "PORT": str(port)})
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.001)
                continue
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.read(-1)).endswith(b"ok")
            writer.close()
            break
        process.kill()
        process.wait()


async def measure(url: str, key: str) -> None:
    """Run all rounds and print the table."""
    sql = await asyncpg.connect(url)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        bench = Bench(http, sql)
        await bench.bare.add_silent_drone()
        held = {"key": {"name": "held"}, "spawn_config": {"executable": {"command": ["sleep", "600"]}}}
        await bench.connect(**held)
        rows: dict[str, tuple[list[float], list[float]]] = {
            "existing key": ([], []),
            "new key": ([], []),
            "connect to first byte": ([], []),
        }
        for _ in range(ROUNDS):
            rows["existing key"][0].append(await timed(bench.connect(key={"name": "held"})))
            rows["existing key"][1].append(await timed(bench.bare.reuse("held")))
            executable = {"executable": {"command": ["sleep", "5"]}}
            rows["new key"][0].append(await timed(bench.connect(key={"name": random_name()}, spawn_config=executable)))
            await asyncio.sleep(0.05)
            rows["new key"][1].append(await timed(bench.bare.new_key()))
            start = time.perf_counter()
            backend = await bench.new_backend_to_first_byte()
            rows["connect to first byte"][0].append((time.perf_counter() - start) * 1000)
            async with http.post(f"{CONTROL}/ctrl/b/{backend}/hard-terminate"):
                pass
            await asyncio.sleep(0.05)
            rows["connect to first byte"][1].append(await timed(bench.by_hand()))
        print(f"\n{'':<24}{'plane ms':>10}{'floor ms':>10}{'above ms':>10}")
        for name, (ours, floor) in rows.items():
            above = statistics.median(a - b for a, b in zip(ours, floor, strict=True))
            print(f"{name:<24}{statistics.median(ours):>10.2f}{statistics.median(floor):>10.2f}{above:>10.2f}")
    await sql.close()


def main() -> None:
    """Start `plane dev` and measure it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plane-bench-")))
        folder.chmod(0o755)
        plane = Path(sys.executable).parent / "plane"
        command = [str(plane), "dev", "--port", str(PORT), "--proxy-port", str(PROXY_PORT), "--runtime", "process"]
        dev = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        stack.callback(dev.wait, 30)
        stack.callback(dev.terminate)
        assert dev.stdout is not None
        while "Ctrl-C" not in dev.stdout.readline():
            pass
        sockets = folder / ".plane" / "postgres" / "socket"
        key = (folder / ".plane" / "api-key").read_text().strip()
        uvloop.run(measure(f"postgresql:///plane?host={sockets}&user=postgres", key))


if __name__ == "__main__":
    main()
