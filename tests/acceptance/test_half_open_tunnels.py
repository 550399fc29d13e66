"""Backends whose tunnels never end by themselves: the proxy closes both connections, and the backend is swept."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from harness.clusters import separate_parts, until

MAX_IDLE_S = 2
BODY_TIMEOUT_S = 1
# Like a Node.js server that handles `upgrade`, it does not end its direction when a client has. "/stuck" does not read.
BACKEND = """
import os, socket, threading
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=64)
kept = []
def serve(connection):
    head = b""
    while not head.endswith(b"\\r\\n\\r\\n"):
        piece = connection.recv(1)
        if not piece:
            return
        head += piece
    if b"pgrade: raw" not in head:
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
        connection.close()
        return
    kept.append(connection)
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: raw\\r\\n\\r\\n")
    if not head.startswith(b"GET /stuck"):
        while connection.recv(65536):
            pass
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
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
    with separate_parts(
        postgres_url, tmp_path, controllers=1, proxy=("--body-timeout", str(BODY_TIMEOUT_S))
    ) as cluster:
        answer = cluster.spawn("k", spawn={"max_idle_seconds": MAX_IDLE_S}, CODE=BACKEND)
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
