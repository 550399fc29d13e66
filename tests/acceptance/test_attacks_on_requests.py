"""Attacks by bytes that a client or a backend chooses, against the real programs."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest
from aiohttp import web

from harness.clusters import dev_cluster, free_port
from harness.program import program
from harness.proxy_world import LIMIT_S, OK, get, program_world

POISON = b"HTTP/1.1 200 OK\r\nX-Poison: 1\r\nContent-Length: 6\r\n\r\npoison"

# Names every field as the strictest gateways do, and shows the result.
GATEWAY = """
import http.server, json, os, re
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        names = [("HTTP_" + re.sub("[^A-Z0-9]", "_", name.upper()), value) for name, value in self.headers.items()]
        body = json.dumps(names).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


async def test_a_backend_sends_no_byte_to_the_clients_of_another(tmp_path: Path) -> None:
    async with program_world(tmp_path) as (it, _):
        it.add_route("u")

        async def send_too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            while b"\r\nx-verified-backend: b-u\r\n" in head:
                writer.write(OK)
                head = await reader.readuntil(b"\r\n\r\n")
            status_line = head.split(b" ")[1].removeprefix(b"/").replace(b"-", b" ")
            writer.write(b"HTTP/1.1 " + status_line + b"\r\nContent-Length: 0\r\n\r\n" + POISON)
            await reader.read(-1)

        it.exchange = send_too_much
        for method, status_line in (("HEAD", "200-OK"), ("GET", "200-OK"), ("GET", "204-Empty"), ("GET", "304-Same")):
            answer = await it.send(get(f"/t/{status_line}", method=method) + get("/u/", "Connection: close"))
            assert b"oison" not in answer
            assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [status_line[:3].encode(), b"200"]
        # A new connection to the first backend each time.
        assert it.connections == 4 + 1


def test_a_gateway_behind_the_proxy_takes_nothing_from_a_client_for_the_proxys_word(tmp_path: Path) -> None:
    forged = [
        "X-Verified-Username",
        "X.Verified.Username",
        "x_verified~user!data",
        "X-Verified_Backend",
        "X.Forwarded.For",
        "X_Forwarded_Host",
        "X-Forwarded-Prefix",
        "Forwarded",
        "x.real.ip",
        "Proxy",
    ]
    with dev_cluster(tmp_path, "--runtime", "process") as cluster:
        command = [sys.executable, "-c", GATEWAY]
        url = cluster.connect(spawn_config={"executable": {"command": command}}, user="ann")["url"]
        host, _, path = url.removeprefix("http://").partition("/")
        with socket.create_connection((host.rpartition(":")[0], cluster.proxy_port), LIMIT_S) as client:
            client.sendall(get(f"/{path}", *(f"{name}: eve" for name in forged), "Connection: close", host=host))
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        fields = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert not [name for name, value in fields if "eve" in value]
        for name in ("HTTP_X_VERIFIED_USERNAME", "HTTP_X_VERIFIED_BACKEND", "HTTP_X_FORWARDED_FOR"):
            assert [seen for seen, _ in fields].count(name) == 1
        assert dict(fields)["HTTP_X_VERIFIED_USERNAME"] == "ann"


@pytest.mark.parametrize("target", ["/ctrl/connect", "/ctrl/%63onnect", "/ctrl/x/..%2fconnect", "//ctrl/connect"])
async def test_no_spelling_of_a_path_gets_past_a_list_of_denied_ones(
    postgres_url: str, tmp_path: Path, target: str
) -> None:
    told: list[str] = []

    async def deny_connect(request: web.Request) -> web.Response:
        told.append(request.headers["X-Original-Path"])
        return web.Response(status=403 if told[-1] == "/connect" else 200)

    app = web.Application()
    app.router.add_route("*", "/", deny_connect)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = free_port()
        arguments = ["controller", "--db", postgres_url, "--port", str(port), "--default-cluster", "c"]
        arguments += ["--forward-auth", f"http://127.0.0.1:{runner.addresses[0][1]}/"]
        with program(arguments, tmp_path, "controller") as running:
            await asyncio.to_thread(running.says, "controller listening")
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            fields = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close"
            writer.write(f"POST {target} HTTP/1.1\r\n{fields}\r\n\r\n{{}}".encode())
            async with asyncio.timeout(LIMIT_S):
                answer = await reader.read(-1)
            writer.close()
            await asyncio.to_thread(running.stop)
    finally:
        await runner.cleanup()
    decoded = target in ("/ctrl/connect", "/ctrl/%63onnect")
    assert (answer[9:12], told) == ((b"401", ["/connect"]) if decoded else (b"400", []))
