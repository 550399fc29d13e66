"""The DNS server under load: ``python -m bench.dns``.

5,000 queries a second for some seconds, from one core, to the server on the other; beside it a bare UDP echo in Python,
the floor of what a query can cost. Counted: answers that never come, and the share of its core that the server needs.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dns.message
import uvloop

from plane.database.embedded.server import embedded_postgres

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
RATE = 5_000
BURST = 25
CONTROL_PORT, DNS_PORT, ECHO_PORT = 29380, 29353, 29354
CLUSTER = "plane.test"
PLANE = Path(sys.executable).parent / "plane"
LOAD_CORE, SERVER_CORE = 0, min(1, (os.cpu_count() or 1) - 1)
LAST_ANSWERS_S = 1.0
ECHO = f"""
import asyncio, uvloop
class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport): self.transport = transport
    def datagram_received(self, data, address): self.transport.sendto(data, address)
async def main():
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", {ECHO_PORT}))
    await asyncio.Event().wait()
uvloop.run(main())
"""

Query = Callable[[int], bytes]


def same_words() -> Query:
    """What resolvers send: the same question with another id."""
    tail = dns.message.make_query(f"_acme-challenge.{CLUSTER}", "TXT").to_wire()[2:]
    return lambda number: number.to_bytes(2) + tail


def mixed_case() -> Query:
    """The same question with random case in the name (0x20), which has to be read each time."""
    name = f"_acme-challenge.{CLUSTER}"

    def query(number: int) -> bytes:
        mixed = "".join(random.choice((c.lower(), c.upper())) for c in name)
        return number.to_bytes(2) + dns.message.make_query(mixed, "TXT").to_wire()[2:]

    # Made before the load, so that the load's core has time to send.
    made = [query(number) for number in range(2_000)]
    return lambda number: number.to_bytes(2) + made[number % len(made)][2:]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, query: Query) -> int:
    """Send at the rate; returns how many answers never came."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        sender.connect(("127.0.0.1", port))
        sender.setblocking(False)
        total, sent, heard = int(RATE * SECONDS), 0, 0
        start = time.perf_counter()
        end = start + SECONDS + LAST_ANSWERS_S
        while heard < total and time.perf_counter() < end:
            due = min(total, int((time.perf_counter() - start) * RATE))
            while sent < due:
                for _ in range(min(BURST, due - sent)):
                    sender.send(query(sent % 65536))
                    sent += 1
            try:
                while True:
                    sender.recv(2048)
                    heard += 1
            except BlockingIOError:
                time.sleep(0.0005)
        return total - heard


@contextmanager
def pinned(command: list[str | Path], core: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["taskset", "-c", str(core), *command], stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


async def main() -> None:
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, ExitStack() as stack:
        async with embedded_postgres(Path(folder) / "postgres") as db:
            control = f"http://127.0.0.1:{CONTROL_PORT}"
            controller: list[str | Path] = [PLANE, "controller", "--db", db, "--port", str(CONTROL_PORT)]
            stack.enter_context(pinned(controller, LOAD_CORE))
            where = ["--controller-url", control, "--host", "127.0.0.1", "--port", str(DNS_PORT)]
            server = stack.enter_context(pinned([PLANE, "dns", *where], SERVER_CORE))
            echo = stack.enter_context(pinned([sys.executable, "-c", ECHO], SERVER_CORE))
            await until_answered(control)
            rows: dict[str, list[tuple[int, float]]] = {}
            for _ in range(ROUNDS):
                for name, port, process, query in (
                    ("bare UDP echo", ECHO_PORT, echo, same_words()),
                    ("same words", DNS_PORT, server, same_words()),
                    ("random case", DNS_PORT, server, mixed_case()),
                ):
                    before = cpu_s(process.pid)
                    lost = load(port, query)
                    rows.setdefault(name, []).append((lost, (cpu_s(process.pid) - before) / SECONDS))
    print(f"{RATE} queries a second for {SECONDS:g} s, medians of {ROUNDS}")
    for name, found in rows.items():
        share = statistics.median(share for _, share in found)
        print(f"{name:16} lost {sum(lost for lost, _ in found)}, {share:.0%} of a core")


def value_set(control: str) -> bool:
    command: list[str | Path] = [PLANE, "admin", "put-dummy-dns", "--cluster", CLUSTER, "--controller", control]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def until_answered(control: str) -> None:
    """Set a value for the cluster, and wait until the server tells it."""
    while not await asyncio.to_thread(value_set, control):
        await asyncio.sleep(0.2)
    query = same_words()(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(1)
        while True:
            asker.sendto(query, ("127.0.0.1", DNS_PORT))
            try:
                if dns.message.from_wire(asker.recv(2048)).answer:
                    return
            except (TimeoutError, ConnectionRefusedError):
                pass
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    uvloop.run(main())
