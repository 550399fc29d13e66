"""A crowd of hostile clients at a real controller: its memory stays bounded, others are served, nothing is an error."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from harness.clusters import free_port
from harness.program import Program, program

MIB = 2**20
# Beyond what it has at rest, all crowds after one another. One that is kept whole needs more alone.
GROWTH_LIMIT_BYTES = 250 * MIB
LIMIT_S = 30.0

HEAD = b"POST /ctrl/connect HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SIZED = HEAD + b"Content-Length: %d\r\n\r\n"
DEEP = b'{"auth":' + b'{"a":[' * 150_000
# What a client begins with and never ends, and how many do so.
CROWDS: dict[str, tuple[int, bytes]] = {
    "bodies that do not come": (2_500, SIZED % 1_000 + b"{"),
    "large bodies that do not end": (400, SIZED % 1_000_000 + b'"' + b"x" * 900_000),
    "heads that do not end": (500, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000),
    "one line that does not end": (500, b"GET /" + b"x" * 600_000),
    "deep JSON": (200, SIZED % len(DEEP) + DEEP),
    "chunks that do not end": (300, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5_000),
    "requests whose answers are not read": (300, b"GET /ctrl/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200),
    "streams": (1_000, b"GET /pub/b/unknown/status-stream HTTP/1.1\r\nHost: localhost\r\n\r\n"),
}


@contextmanager
def crowd(port: int, size: int, sent: bytes) -> Iterator[None]:
    """So many connections, each of which has sent what the controller takes of ``sent``."""
    with ExitStack() as stack:
        for _ in range(size):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S))
            client.setblocking(False)
            left = sent
            try:
                while left:
                    left = left[client.send(left) :]
            except (BlockingIOError, ConnectionError):
                # It is refused, or waits.
                pass
        yield


def call(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    client = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        client.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        client.close()


def memory_bytes(controller: Program, field: str) -> int:
    """VmRSS: now. VmHWM: the most it had."""
    text = Path(f"/proc/{controller.process.pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.M)
    assert found
    return int(found[1]) * 1024


def test_memory_is_bounded_and_others_are_served(postgres_url: str, tmp_path: Path) -> None:
    port = free_port()
    with program(["controller", "--db", postgres_url, "--port", str(port)], tmp_path, "controller") as controller:
        controller.says("controller listening")
        key = {"key": {"name": "k"}}
        assert call(port, "POST", "/ctrl/connect", key)[0] == 409
        at_rest = memory_bytes(controller, "VmRSS")
        for name, (size, sent) in CROWDS.items():
            with crowd(port, size, sent):
                assert call(port, "POST", "/ctrl/connect", key)[0] == 409, name
                assert memory_bytes(controller, "VmHWM") - at_rest < GROWTH_LIMIT_BYTES, name
        assert controller.stop() == 0
        log = controller.log.read_text()
        assert "[error" not in log
        assert "[warning" not in log
