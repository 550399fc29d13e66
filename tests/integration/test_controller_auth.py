"""API keys and forward auth on a real controller, for requests and WebSockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from harness.controllers import Api, controller_api
from harness.fake_node import CLUSTER, VERSION
from harness.program import PLANE
from plane.decisions.access import Role, key_entry
from plane.protocol.errors import ConfigurationError
from plane.settings import ControllerLimits

KEYS = {role: f"key-of-{role}-0123456789" for role in Role}
STATE = f"/ctrl/c/{CLUSTER}/state"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("".join(f"{key_entry(f'the-{role}', role, key)}\n" for role, key in KEYS.items()))
    return file


async def status(api: Api, method: str, path: str, key: str | None) -> int:
    async with api.http.request(method, api.base + path, headers=bearer(key) if key else {}, json={}) as answer:
        if answer.status in (401, 403) and method != "HEAD":
            assert (await answer.json())["kind"] == "Other"
        if answer.status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        return answer.status


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/pub/health", None),
        ("GET", "/pub/b/unknown/status", None),
        ("GET", "/pub/nothing", None),
        ("GET", "/ctrl/status", Role.READ),
        ("HEAD", "/ctrl/status", Role.READ),
        ("GET", "/ctrl/openapi.json", Role.READ),
        ("GET", STATE, Role.READ),
        ("GET", "/ctrl/nothing", Role.READ),
        ("POST", "/ctrl/connect", Role.CONNECT),
        ("POST", "/ctrl/b/unknown/soft-terminate", Role.CONNECT),
        ("POST", "/ctrl/b/revoke", Role.CONNECT),
        ("POST", f"/ctrl/c/{CLUSTER}/d/dr-x/drain", Role.ADMIN),
        ("GET", f"/ctrl/c/{CLUSTER}/drone-socket", Role.NODE),
        ("GET", f"/ctrl/c/{CLUSTER}/proxy-socket", Role.NODE),
        ("GET", "/ctrl/dns-socket", Role.NODE),
    ],
)
async def test_each_endpoint_is_open_to_its_roles_only(
    method: str, path: str, needed: Role | None, postgres_url: str, key_file: Path
) -> None:
    async with controller_api(postgres_url, api_key_file=key_file) as api:
        for key in (None, "wrong"):
            refused = await status(api, method, path, key) == 401
            assert refused is (needed is not None)
        for role, key in KEYS.items():
            forbidden = await status(api, method, path, key) == 403
            assert forbidden is (needed is not None and not role.may(needed))


async def test_keys_are_reloaded_on_sighup_and_an_invalid_file_changes_nothing(
    postgres_url: str, key_file: Path
) -> None:
    async with controller_api(postgres_url, api_key_file=key_file) as api:

        async def until(key: str, wanted: int) -> None:
            os.kill(os.getpid(), signal.SIGHUP)
            async with asyncio.timeout(10):
                while await status(api, "GET", STATE, key) != wanted:
                    await asyncio.sleep(0.01)

        key_file.write_text(key_entry("new", Role.READ, "a-new-key"))
        await until("a-new-key", 200)
        assert await status(api, "GET", STATE, KEYS[Role.ADMIN]) == 401
        key_file.write_text("nonsense")
        await until("a-new-key", 200)
        key_file.unlink()
        await until("a-new-key", 200)


async def test_connections_end_with_the_role_of_the_key_that_opened_them(postgres_url: str, key_file: Path) -> None:
    async with controller_api(postgres_url, api_key_file=key_file) as api, aiohttp.ClientSession() as http:

        async def node(key: str) -> aiohttp.ClientWebSocketResponse:
            ws = await http.ws_connect(f"{api.base}/ctrl/c/{CLUSTER}/proxy-socket", headers=bearer(key))
            await ws.send_str(json.dumps({"version": VERSION, "name": f"px-{key[7:12]}"}))
            await ws.receive_str()
            return ws

        async def stream(key: str) -> aiohttp.ClientResponse:
            return await http.get(f"{api.base}/ctrl/events", params={"follow": "true"}, headers=bearer(key))

        withdrawn, kept = await node(KEYS[Role.NODE]), await node(KEYS[Role.ADMIN])
        streams = {role: await stream(KEYS[role]) for role in (Role.READ, Role.CONNECT)}
        lines = key_file.read_text().splitlines()
        # The key of the node is gone, and that of the reader has another role.
        lines = [line for line in lines if " node " not in line]
        lines.append(lines.pop(next(i for i, line in enumerate(lines) if " read " in line)).replace(" read ", " node "))
        key_file.write_text("\n".join(lines))
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(5):
            assert (await withdrawn.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            with pytest.raises(aiohttp.ClientError):
                await streams[Role.READ].content.read()
        await kept.send_str(json.dumps({"RouteInfoRequest": {"token": "unknown"}}))
        assert "RouteInfoResponse" in await kept.receive_str(timeout=5)
        assert not streams[Role.CONNECT].content.at_eof()
        await kept.close()
        for response in streams.values():
            response.close()


async def test_unreadable_key_file_prevents_the_start(postgres_url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        async with controller_api(postgres_url, api_key_file=tmp_path / "none"):
            pass


def test_command_creates_keys_that_the_controller_accepts(tmp_path: Path) -> None:
    file = tmp_path / "keys"

    def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([PLANE, "api-key", *arguments], input=text, capture_output=True, text=True, check=False)

    made = run("app", "--role", "connect", "--file", str(file))
    assert made.returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == key_entry("app", Role.CONNECT, made.stdout.strip()) + "\n"
    own = "a key of one's own, long enough"
    assert run("ops", "--role", "admin", "--file", str(file), "--hash-stdin", text=own + "\n").stdout == ""
    assert file.read_text().splitlines()[1] == key_entry("ops", Role.ADMIN, own)
    shown = run("eve", "--role", "read")
    assert shown.stderr.strip() == key_entry("eve", Role.READ, shown.stdout.strip())
    for arguments, text in (
        (["two words"], ""),
        (["x", "--hash-stdin"], "short\n"),
        (["x", "--file", "/nowhere/x"], ""),
    ):
        refused = run(*arguments, text=text)
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr


async def test_controller_that_is_open_beyond_loopback_logs_a_warning(
    postgres_url: str, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for host, settings, warned in (
        ("127.0.0.1", {}, False),
        ("0.0.0.0", {}, True),
        ("0.0.0.0", {"api_key_file": key_file}, False),
    ):
        async with controller_api(postgres_url, host=host, **settings):
            pass
        assert ("control API is open" in capsys.readouterr().out) is warned


class AuthServer:
    """A forward-auth server that answers what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.status: int | None = 200
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.connections: set[Any] = set()

    async def answer(self, request: web.Request) -> web.Response:
        # Reads the body, as many servers do: there must be an end to it.
        assert await request.read() == b""
        self.connections.add(request.transport)
        self.asked.append((request.method, request.path_qs, {k.lower(): v for k, v in request.headers.items()}))
        if self.status is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(status=self.status, headers={"Location": "http://127.0.0.1:1/"})


@asynccontextmanager
async def auth_server() -> AsyncIterator[tuple[AuthServer, str]]:
    server = AuthServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        yield server, f"http://127.0.0.1:{port}/check?x=1"
    finally:
        await runner.cleanup()


async def test_requests_to_the_forward_auth_server_are_as_recorded(postgres_url: str) -> None:
    async with auth_server() as (server, url), controller_api(postgres_url, forward_auth=url) as api:
        headers = {"Authorization": "Bearer good", "X-Original-Path": "/forged"}
        assert (await api.call("GET", "/ctrl/status", headers=headers))[0] == 200
        assert (await api.call("POST", "/ctrl/connect", {}, headers=headers))[0] == 409
        assert [(method, path) for method, path, _ in server.asked] == [("GET", "/check?x=1"), ("POST", "/check?x=1")]
        seen = server.asked[1][2]
        assert seen["x-original-path"] == "/connect"
        assert seen["authorization"] == "Bearer good"
        assert seen["content-type"] == "application/json"
        assert seen.get("content-length", "0") == "0"
        assert "transfer-encoding" not in seen
        # One connection serves them all.
        assert len(server.connections) == 1
        server.asked.clear()
        for path in ("/pub/health", "/pub/nothing"):
            await api.call("GET", path)
        assert server.asked == []


async def raw_post(port: int, target: str) -> int:
    """Post an empty JSON object to a target that no client library would send as it is; return the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fields = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nX_Original_Path: /status\r\n"
    writer.write(f"POST {target} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n{{}}".encode())
    async with asyncio.timeout(10):
        answer = await reader.read(-1)
    writer.close()
    return int(answer.split(b" ")[1])


# What a client may write for a path, and which path the forward-auth server is told; None: 400, and it is not asked.
SPELLINGS = {
    "/ctrl/connect": "/connect",
    "/ctrl/%63onnect": "/connect",
    "/ctrl/%63%6F%6e%6E%65%63%74": "/connect",
    "/%63trl/connect": "/connect",
    "/ctrl/connect?x=/../status": "/connect",
    "http://localhost/ctrl/%63onnect": "/connect",
    "/ctrl/c/localhost%3A9090/state": "/c/localhost:9090/state",
    "/ctrl/%2563onnect": None,
    "/ctrl%2fconnect": None,
    "/ctrl/%2e/connect": None,
    "/ctrl/./connect": None,
    "/ctrl/x/../connect": None,
    "/ctrl/x/%2E%2e/connect": None,
    "//ctrl/connect": None,
    "/ctrl//connect": None,
    "/ctrl/connect/": None,
    "/ctrl/connect;x": None,
    "/ctrl/connect%3bx": None,
    "/ctrl/connect%00": None,
    "/ctrl/connect%0d%0aX-Original-Path:%20/status": None,
    "/ctrl/connect%3Fx": None,
    "/ctrl/connect%23x": None,
    "/ctrl\\connect": None,
    "/ctrl/conn%C3%A9ct": None,
}


async def test_forward_auth_server_gets_the_routed_path(postgres_url: str) -> None:
    async with auth_server() as (server, url), controller_api(postgres_url, forward_auth=url) as api:
        server.status = 403
        port = int(api.base.rpartition(":")[2])
        for target, told in SPELLINGS.items():
            server.asked.clear()
            status = await raw_post(port, target)
            seen = [headers["x-original-path"] for _, _, headers in server.asked]
            assert (target, status, seen) == (target, 400 if told is None else 401, [] if told is None else [told])
            assert not any("x_original_path" in headers for _, _, headers in server.asked)


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (403, 401, "Unauthorized"),
        (302, 401, "Unauthorized"),
        (500, 401, "Unauthorized"),
        (None, 502, "Error forwarding auth."),
    ],
)
async def test_responses_to_refused_requests_are_as_recorded(
    postgres_url: str, answer: int | None, status: int, text: str
) -> None:
    async with auth_server() as (server, url), controller_api(postgres_url, forward_auth=url) as api:
        server.status = answer
        for method, path in (("GET", "/ctrl/status"), ("POST", "/ctrl/connect"), ("GET", "/ctrl/nothing")):
            assert await api.call(method, path) == (status, text)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await api.http.ws_connect(f"{api.base}/ctrl/c/{CLUSTER}/drone-socket")
        assert caught.value.status == status


async def test_forward_auth_request_times_out(postgres_url: str) -> None:
    # It listens, and nobody ever looks.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        limits = ControllerLimits(forward_auth_s=0.2)
        async with controller_api(postgres_url, forward_auth=url, limits=limits) as api:
            with capture_logs() as logs:
                assert await api.call("GET", "/ctrl/status") == (502, "Error forwarding auth.")
    (warning,) = [entry for entry in logs if entry["event"] == "forward auth server does not respond"]
    assert warning["error"] == "no response in time"


async def test_websockets_need_both_forward_auth_and_keys(postgres_url: str, key_file: Path) -> None:
    async with (
        auth_server() as (server, url),
        controller_api(postgres_url, forward_auth=url, api_key_file=key_file) as api,
    ):
        path = f"{api.base}/ctrl/c/{CLUSTER}/drone-socket?pool=p"
        async with api.http.ws_connect(path, headers=bearer(KEYS[Role.ADMIN])) as ws:
            await ws.send_str(json.dumps({"version": VERSION, "name": "dr-x"}))
            assert json.loads(await ws.receive_str())["name"].startswith("co-")
        assert server.asked[0][2]["x-original-path"] == f"/c/{CLUSTER}/drone-socket"
        assert "upgrade" not in server.asked[0][2]
        # A key that is not good enough is not even asked about.
        server.asked.clear()
        assert (await api.call("GET", STATE, headers=bearer("wrong")))[0] == 401
        assert server.asked == []
