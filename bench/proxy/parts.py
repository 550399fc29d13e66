"""What runs while the proxy is measured: the proxy, those it is compared with, a backend and a controller."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from aiohttp import web

__all__ = ["PORTS", "TOKEN", "Parts", "cpu_s", "parts", "resident_kib", "serve_controller", "serve_echo"]

TOKEN = "benchmark-token"
MEASURED_CORE, LOAD_CORE = "0", "1"
CHP = "configurable-http-proxy@5.3.0"


@dataclass(frozen=True)
class Ports:
    plane: int = 29090
    nginx: int = 29091
    backend: int = 29092
    controller: int = 29093
    sockets: int = 29094
    plane_tls: int = 29095
    nginx_tls: int = 29096
    plane_redirect: int = 29097
    chp: int = 29098
    chp_api: int = 29099
    workers: int = 29100


PORTS = Ports()

# The backend is nginx too, so that it is not what is measured.
BACKEND = """
worker_processes 1; daemon off; pid {folder}/backend.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; sendfile on; tcp_nopush on;
  server {{ listen 127.0.0.1:{backend} backlog=1024;
    location / {{ return 200 "hello"; }} location = /large {{ root {folder}; }} }} }}
"""
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr; worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 100000000;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 128; keepalive_requests 100000000; }}
  upstream sockets {{ server 127.0.0.1:{sockets}; }}
  proxy_http_version 1.1; proxy_buffers 16 256k; proxy_buffer_size 256k; proxy_busy_buffers_size 512k;
  server {{ listen 127.0.0.1:{nginx} backlog=1024; listen 127.0.0.1:{nginx_tls} ssl backlog=1024;
    ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;
    location / {{ proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_pass http://backend/; }}
    location /echo {{ proxy_set_header Connection Upgrade; proxy_set_header Upgrade $http_upgrade;
      proxy_read_timeout 1h; proxy_pass http://sockets; }} }} }}
"""


@dataclass
class Parts:
    """What runs. ``pids`` by name; ``has_chp``: whether configurable-http-proxy is among them."""

    folder: Path
    pids: dict[str, int]
    has_chp: bool


@contextmanager
def running(core: str, *command: str | Path) -> Iterator[int]:
    """A program on one core, or on several, while the block runs; its process id."""
    process = subprocess.Popen(["taskset", "-c", core, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def plane(port: int, *options: str | Path) -> list[str | Path]:
    """The command line of a proxy."""
    return [
        Path(sys.executable).parent / "plane", "proxy", "--host", "127.0.0.1", "--http-port", str(port),
        "--controller-url", f"http://127.0.0.1:{PORTS.controller}", "--cluster", f"localhost:{PORTS.plane}", *options,
    ]  # fmt: skip


@contextmanager
def parts(folder: Path) -> Iterator[Parts]:
    """Everything but the proxy with workers, which a row starts for itself."""
    folder.chmod(0o755)
    (folder / "large").write_bytes(os.urandom(1024 * 1024))
    leaf = trustme.CA().issue_cert("localhost")
    (folder / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    (folder / "key.pem").touch(mode=0o600)
    (folder / "key.pem").write_bytes(leaf.private_key_pem.bytes())
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    with ExitStack() as stack:
        pids = {}

        def start(name: str, core: str, *command: str | Path) -> None:
            pids[name] = stack.enter_context(running(core, *command))

        for name, text, core in (("backend", BACKEND, LOAD_CORE), ("nginx", NGINX, MEASURED_CORE)):
            (folder / f"{name}.conf").write_text(text.format(folder=folder, **PORTS.__dict__))
            start(name, core, nginx, "-c", folder / f"{name}.conf")
        for role in ("controller", "echo"):
            start(role, LOAD_CORE, sys.executable, "-m", "bench.proxy", role)
        start("plane", MEASURED_CORE, *plane(PORTS.plane))
        tls = ("--https", "--https-port", str(PORTS.plane_tls))
        files = ("--tls-cert", folder / "chain.pem", "--tls-key", folder / "key.pem")
        start("plane_tls", MEASURED_CORE, *plane(PORTS.plane_redirect, *tls, *files))
        chp = _install_chp(folder)
        if chp is not None:
            ports = ("--port", str(PORTS.chp), "--api-port", str(PORTS.chp_api), "--log-level", "error")
            target = f"http://127.0.0.1:{PORTS.backend}"
            start("chp", MEASURED_CORE, chp, "--ip", "127.0.0.1", *ports, "--default-target", target)
        found = Parts(folder, pids, chp is not None)
        asyncio.run(_until_ready(found))
        yield found


def _install_chp(folder: Path) -> Path | None:
    """configurable-http-proxy, where npm can install it."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    command: list[str | Path] = [
        npm,
        "install",
        "--prefix",
        folder / "npm",
        "--no-save",
        "--no-audit",
        "--no-fund",
        CHP,
    ]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        return None
    return folder / "npm" / "node_modules" / ".bin" / "configurable-http-proxy"


async def _until_ready(found: Parts) -> None:
    """Return once everything answers."""
    urls = [f"http://127.0.0.1:{PORTS.plane}/ready", f"http://127.0.0.1:{PORTS.plane_redirect}/ready"]
    urls.append(f"http://127.0.0.1:{PORTS.nginx}/")
    if found.has_chp:
        urls.append(f"http://127.0.0.1:{PORTS.chp}/")
    async with asyncio.timeout(60):
        for url in urls:
            while not await asyncio.to_thread(_answers, url):
                await asyncio.sleep(0.2)
    if found.has_chp:
        body = json.dumps({"target": f"http://127.0.0.1:{PORTS.sockets}"}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{PORTS.chp_api}/api/routes/echo", body, method="POST")
        urllib.request.urlopen(request, timeout=10).close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def resident_kib(pid: int) -> int:
    """Memory of a process that is its own and in use, in KiB; of nginx, that of its worker."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(_private_kib(int(one)) for one in (children or [str(pid)]))


def cpu_s(pid: int) -> float:
    """CPU time of a process and its children so far."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for one in (str(pid), *children):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def _private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


class Echo(asyncio.Protocol):
    """Upgrades whatever comes, and sends back every byte."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.upgraded = False

    def data_received(self, data: bytes) -> None:
        if not self.upgraded:
            self.upgraded = True
            data = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        self.transport.write(data)  # type: ignore[attr-defined]


async def serve_echo() -> None:
    """The backend of the WebSocket rows, until killed."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", PORTS.sockets, backlog=4096)
    await server.serve_forever()


async def serve_controller() -> None:
    """A controller that responds at once, until it is killed. It knows all tokens but "unknown-…"."""

    async def socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.receive_str()
        await ws.send_str(json.dumps({"version": {"version": "0", "git_hash": "0"}, "name": "co-bench"}))
        async for frame in ws:
            message = json.loads(frame.data)
            if "RouteInfoRequest" in message:
                token = message["RouteInfoRequest"]["token"]
                route = None if token.startswith("unknown-") else _route(token)
                await ws.send_str(json.dumps({"RouteInfoResponse": {"token": token, "route_info": route}}))
        return ws

    app = web.Application()
    app.add_routes([web.get("/ctrl/c/{cluster}/proxy-socket", socket)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORTS.controller).start()
    await asyncio.Event().wait()


def _route(token: str) -> dict[str, object]:
    port = PORTS.sockets if token.endswith("-echo") else PORTS.backend
    return {
        "backend_id": "echo" if token.endswith("-echo") else "backend",
        "address": f"127.0.0.1:{port}",
        "secret_token": "s",
        "cluster": f"localhost:{PORTS.plane}",
        "user": "ann",
        "user_data": {},
        "subdomain": None,
    }
