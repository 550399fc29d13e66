"""A Node.js backend whose tunnels never end by themselves: the proxy closes them, and the backend is swept."""

from __future__ import annotations

import shutil
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from harness import real_parts
from harness.clusters import separate_parts, until

MAX_IDLE_S = 2
BODY_TIMEOUT_S = 1
# A socket that was upgraded may stay half-open in Node.js: it does not answer the client's end. "/stuck" reads nothing.
BACKEND = """
const s = require('http').createServer((q, r) => r.end('x'));
s.on('upgrade', (q, k) => {
  k.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: raw\\r\\n\\r\\n');
  k.on('error', () => {});
  if (!q.url.startsWith('/stuck')) k.on('data', () => {});
});
s.listen(process.env.PORT, '127.0.0.1');
"""


def open_tunnel(url: str, path: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.port is not None
    client = socket.create_connection((parts.hostname, parts.port), timeout=20)
    head = f"GET {parts.path}{path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
    client.sendall(head.encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        piece = client.recv(1)
        assert piece, answer
        answer += piece
    assert answer.startswith(b"HTTP/1.1 101 ")
    return client


def open_files(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def test_tunnels_that_backends_never_end_are_closed_and_the_backend_is_swept(postgres_url: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        real_parts.missing("Node.js")
    with separate_parts(
        postgres_url, tmp_path, controllers=1, proxy=("--body-timeout", str(BODY_TIMEOUT_S))
    ) as cluster:
        executable = {"command": [node, "-e", BACKEND], "isolation": cluster.isolation}
        answer = cluster.connect(spawn_config={"executable": executable, "max_idle_seconds": MAX_IDLE_S})
        cluster.until_status(answer["backend_id"], "ready")
        assert cluster.get(answer["url"]).status == 200
        proxy = cluster.programs["proxy"]
        before = open_files(proxy.process.pid)
        for _ in range(3):
            # The client closes its connection, and is gone.
            open_tunnel(answer["url"], "").close()
        # The client stays, and wants to send more than all buffers take: only the proxy can end it.
        with open_tunnel(answer["url"], "stuck") as client, suppress(ConnectionError):
            while True:
                client.sendall(bytes(65536))
        entry = cluster.until_status(answer["backend_id"], "terminated")
        assert entry["termination_reason"] == "swept"
        until(lambda: open_files(proxy.process.pid) <= before)
        assert proxy.log.read_text().count("tunnel stalled; closed") == 4
